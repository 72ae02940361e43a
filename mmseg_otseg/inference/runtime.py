"""Segments images with an exported model."""

from __future__ import annotations

import os
from collections.abc import Sequence
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from mmseg_otseg.errors import UserError
from mmseg_otseg.imaging import class_list, names_of, resize, window_slices
from mmseg_otseg.inference.exported import (
    MODEL,
    VOCABULARY,
    Session,
    TextEncoder,
    Vocabulary,
    read_metadata,
    read_vocabulary,
)
from mmseg_otseg.inference.segmenter import (
    ModelForClasses,
    Segmenter,
    check_memory,
    same_embedding_warning,
)


class OTSegRuntime(Segmenter):
    """Segments images like ``OTSegInferencer``, from an exported folder, without torch or mmseg.

    Args:
        folder: What ``tools/export.py`` wrote.
        threads: Threads to run on; None is all cores.
        seen_bias: Subtracted from the probabilities of the seen classes; None is the exported one.
        providers: ONNX Runtime's execution providers in order of preference, such as
            ``["CPUExecutionProvider"]``; None takes a GPU where the installed package offers one.

    Raises:
        FileNotFoundError: If the folder holds no exported model.
        ImportError: If ONNX Runtime is missing or older than 1.20.
        UserError: If a file has another layout or was made with another CLIP, or a provider is not
            installed.

    Examples:
        >>> runtime = OTSegRuntime("exported")
        >>> runtime("photos/", classes=["cat", "sofa"], out_dir="out")["classes"]
        ('cat', 'sofa')
    """

    def __init__(
        self,
        folder: str | os.PathLike,
        threads: int | None = None,
        seen_bias: float | None = None,
        providers: Sequence[str] | None = None,
    ) -> None:
        self.folder, self.threads, self.providers = Path(folder), threads, providers
        self.metadata = read_metadata(self.folder)
        self.seen_bias = self.metadata["seen_bias"] if seen_bias is None else seen_bias
        if not -1 <= self.seen_bias <= 1:
            raise UserError(f"the seen-class bias must be within -1..1, got {self.seen_bias}")
        self.known = read_vocabulary(self.folder / VOCABULARY, self.metadata["clip"])
        self._session = Session(self.folder / MODEL, "probabilities", threads, providers)
        self._encoded = lru_cache(1)(lambda names: self._encoder(names))

    def __reduce__(self) -> tuple[Any, ...]:
        """Processes that are started with ``spawn`` open the folder again."""
        return type(self), (self.folder, self.threads, self.seen_bias, self.providers)

    @property
    def takes_names(self) -> bool:
        """Whether new class names can be encoded."""
        return self.metadata["prompts"] is not None

    @property
    def size(self) -> tuple[int, int] | None:
        """Rows and columns that the model's images must have; None is any multiple of the patch."""
        return tuple(self.metadata["size"]) if self.metadata["size"] else None

    def vocabulary(self, classes: str | os.PathLike | Sequence[str] | None = None) -> Vocabulary:
        """Encode class names; the last vocabulary is kept.

        Args:
            classes: Names, see :func:`~mmseg_otseg.imaging.class_list`; None is the exported
                vocabulary.

        Raises:
            UserError: If the names are invalid, or the exported model takes no new ones.
        """
        names = self.known.joined_names if classes is None else tuple(class_list(classes))
        if names == self.known.joined_names:
            return self.known
        return self._encoded(names)

    @cached_property
    def _encoder(self) -> TextEncoder:
        prompts = self.metadata["prompts"]
        if prompts is None:
            raise UserError(
                "this model was exported with fixed text embeddings and has no text encoder: it "
                f"knows the classes {', '.join(self.known.names)} only"
            )
        return TextEncoder(self.folder, self.known, prompts, self.threads, self.providers)

    def run(self, images: np.ndarray, vocabulary: Vocabulary) -> np.ndarray:
        """Run the model once.

        Args:
            images: RGB values, shape (B, h, w, 3), uint8, of a size that the model takes.
            vocabulary: The classes.

        Returns:
            Values of every name, shape (B, Q, h, w): probabilities less the bias of seen classes,
            or cosines for :meth:`merge_names`.

        Raises:
            UserError: If the model does not take these images.
        """
        seen = np.repeat(vocabulary.seen, vocabulary.names_per_class).astype(np.float32)
        return self._session(
            image=np.ascontiguousarray(images.transpose(0, 3, 1, 2)),
            text=vocabulary.text,
            seen_bias=np.float32(self.seen_bias) * seen,
        )

    def merge_names(self, values: np.ndarray, vocabulary: Vocabulary) -> np.ndarray:
        """Class maps from the values of all names, once windows are averaged.

        Args:
            values: Values of every name, shape (Q, h, w).
            vocabulary: The classes.

        Returns:
            Shape (K, h, w): for each class the largest of its names, after the softmax over all
            names if the model is training-free.
        """
        scale = self.metadata["softmax_scale"]
        if scale is not None:
            values = values - values.max(0)
            values *= scale
            values = np.exp(values, out=values)
            values /= values.sum(0)
        counts = vocabulary.names_per_class
        if len(counts) != len(values):
            values = np.maximum.reduceat(values, np.cumsum([0, *counts[:-1]]))
        if scale is not None and self.seen_bias:
            values = values - np.float32(self.seen_bias) * vocabulary.seen[:, None, None]
        return values

    def predict(
        self, image: np.ndarray, model: Vocabulary, refine: bool | None = None
    ) -> np.ndarray:
        """Segment an image as the config's test pipeline does: resized, whole or in windows.

        Args:
            image: RGB values, shape (H, W, 3), uint8.
            model: The classes.
            refine: Whether edges in the maps move to edges in the image, which needs torch.

        Returns:
            Probabilities less the bias of seen classes, shape (K, h, w), at the size that the
            image is resized to.

        Raises:
            UserError: If the resized image, or a side of it that is smaller than a window, does not
                have the size that the model was exported for.
        """
        image = _resized(image, self.metadata["resize"])
        check_memory(len(model.text), image.shape[:2])
        slides = self.metadata["windows"]
        if slides is None:
            values = self._predict_window(image, model)
        else:
            rows, columns = map(window_slices, image.shape[:2], slides["size"], slides["stride"])
            values = np.zeros((len(model.text), *image.shape[:2]), np.float32)
            covered = np.zeros(image.shape[:2], np.float32)
            for row in rows:
                for column in columns:
                    values[:, row, column] += self._predict_window(image[row, column], model)
                    covered[row, column] += 1
            values /= covered
        return self.merge_names(_refined(values, image) if refine else values, model)

    def _predict_window(self, window: np.ndarray, vocabulary: Vocabulary) -> np.ndarray:
        """Values (Q, h, w) of a window (h, w, 3)."""
        size = window.shape[:2]
        rows, columns = (
            -(-side // step) * step for side, step in zip(size, self.metadata["patch"])
        )
        if self.size is not None and self.size != (rows, columns):
            raise UserError(
                f"the model was exported for windows of {self.size[0]} x {self.size[1]} pixels, "
                f"and this one has {size[0]} x {size[1]}, as the image is narrow: export the model "
                "with --dynamic"
            )
        values = self.run(resize(window, (rows, columns))[None], vocabulary)[0]
        corners = self.metadata["align_corners"]
        return resize(values.transpose(1, 2, 0), size, corners).transpose(2, 0, 1)

    def for_classes(self, classes: str | os.PathLike | Sequence[str] | None) -> ModelForClasses:
        """The vocabulary of a call."""
        vocabulary = self.vocabulary(classes)
        texts = [name for entry in vocabulary.joined_names for name in names_of(entry)]
        return ModelForClasses(
            model=vocabulary,
            names=vocabulary.names,
            palette=vocabulary.palette,
            align_corners=self.metadata["align_corners"],
            warning=same_embedding_warning(texts, vocabulary.text),
        )

    def settings(self, model: Vocabulary, refine: bool | None) -> dict[str, Any]:
        """The folder, its checkpoint, the seen-class bias, and whether masks are refined."""
        return {
            "folder": str(self.folder),
            "checkpoint_sha256": self.metadata["checkpoint_sha256"],
            "seen_bias": self.seen_bias,
            "refine": bool(refine),
        }


def _refined(values: np.ndarray, image: np.ndarray) -> np.ndarray:
    """Maps (Q, h, w) with the edges of the image (h, w, 3); see :func:`mmseg_otseg.ops.refine`."""
    import torch

    from mmseg_otseg.ops import refine

    pixels = torch.from_numpy(image.astype(np.float32)).permute(2, 0, 1)
    return refine(torch.from_numpy(values)[None], pixels[None])[0].numpy()


def _resized(image: np.ndarray, how: dict[str, Any] | None) -> np.ndarray:
    """An image (H, W, 3) at the size that mmseg's ``Resize`` gives it."""
    if how is None:
        return image
    width, height = how["scale"]
    if how["keep_ratio"]:
        rows, columns = image.shape[:2]
        factor = min(
            max(width, height) / max(rows, columns), min(width, height) / min(rows, columns)
        )
        height, width = int(rows * factor + 0.5), int(columns * factor + 0.5)
    return resize(image, (height, width))
