"""The part of an inferencer that does not depend on the model."""

from __future__ import annotations

import logging
import os
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from contextlib import nullcontext
from typing import Any, NamedTuple

import numpy as np

from mmseg_otseg.errors import UserError
from mmseg_otseg.imaging.labels import NONE_NAME, labels_at_size
from mmseg_otseg.imaging.outputs import LAYOUTS, OutputFolder
from mmseg_otseg.imaging.overlays import paint
from mmseg_otseg.imaging.reading import Source, find_images, read_image

logger = logging.getLogger("mmseg_otseg")

MAX_VALUES = 3 * 2**26  # of all class maps of an image, 768 MiB; some steps need three copies
SAME_COSINE = 0.999  # cosine of two texts that CLIP does not tell apart


class Segmented(NamedTuple):
    """The result for one image.

    Attributes:
        name: Path of the image, or the number of the array among the inputs.
        mask: Class indices (H, W), uint8 or uint16; None if the image was skipped.
        overlay: RGB values (h, w, 3), uint8, if requested.
        classes: Class names by index.
        reason: Why the image was skipped; empty if it was not.
    """

    name: str
    mask: np.ndarray | None
    overlay: np.ndarray | None
    classes: tuple[str, ...]
    reason: str = ""


class ModelForClasses(NamedTuple):
    """A model and the classes that it segments in one call.

    Attributes:
        model: The model to pass to :meth:`Segmenter.predict`.
        names: The K class names.
        palette: RGB colors of the classes.
        align_corners: How the class maps are resized, as in ``interpolate``.
        warning: About names that this CLIP does not tell apart; empty if there are none.
    """

    model: Any
    names: tuple[str, ...]
    palette: Sequence[Sequence[int]]
    align_corners: bool
    warning: str


class Segmenter(ABC):
    """Segments images into classes named in the call; subclasses provide the model."""

    @abstractmethod
    def for_classes(self, classes: Any) -> ModelForClasses:
        """A model for the classes of a call; None means the model's own classes."""

    @abstractmethod
    def settings(self, model: Any, refine: bool | None) -> dict[str, Any]:
        """What to note about a model of :meth:`for_classes` beside the masks, for JSON."""

    @abstractmethod
    def predict(self, image: np.ndarray, model: Any, refine: bool | None = None) -> np.ndarray:
        """Predict an image.

        Args:
            image: RGB values, shape (H, W, 3), uint8.
            model: The model of :meth:`for_classes`.
            refine: As in :meth:`segment`.

        Returns:
            Class maps (K, h, w) at the size that the model gives the image, in which the largest
            value wins.
        """

    def __call__(
        self,
        inputs: Source | Sequence[Source],
        classes: str | Sequence[str] | Mapping[str, Any] | None = None,
        **options: Any,
    ) -> dict[str, Any]:
        """Segment images and keep all results; :meth:`segment` yields them one by one.

        Args:
            inputs, classes, options: As in :meth:`segment`.

        Returns:
            Lists with one entry per image, in the order of the inputs: ``predictions``, class
            indices (H, W), or None for a skipped image; ``visualization``, overlays, or None if not
            requested; and ``names``. Also ``classes``, the class names by index, and ``skipped``,
            the names of the skipped images.

        Raises:
            UserError: As in :meth:`segment`.
        """
        results = list(self.segment(inputs, classes, **options))
        return {
            "predictions": [result.mask for result in results],
            "visualization": [result.overlay for result in results],
            "names": [result.name for result in results],
            "classes": results[0].classes,
            "skipped": [result.name for result in results if result.mask is None],
        }

    def segment(
        self,
        inputs: Source | Sequence[Source],
        classes: str | Sequence[str] | Mapping[str, Any] | None = None,
        none_below: float | None = None,
        out_dir: str | os.PathLike | None = None,
        return_vis: bool = False,
        overlays: bool = True,
        refine: bool | None = None,
        layout: str = "masks",
        coco: bool = False,
    ) -> Iterator[Segmented]:
        """Segment images one after the other, without keeping results in memory.

        An image that cannot be read or segmented is skipped and named in the log.

        Args:
            inputs: A path, a folder (its images, sorted), an image as an array (BGR, 0..255, also
                with an alpha channel, or gray), or a list of these.
            classes: Classes for this call: names as a list or a string like ``"cat, sofa"``, or a
                class split; see :func:`~mmseg_otseg.inference.set_classes`. None means those of
                the model.
            none_below: Pixels whose best value (a probability, minus the bias for seen classes) is
                below this become the extra class "none of these" with index K. None means as the
                config's ``model.test_cfg.none_below`` says, and nothing without it.
            out_dir: Folder for masks (``pred/``), overlays (``vis/``) and their key, written as
                soon as each image is done; see :class:`~mmseg_otseg.imaging.OutputFolder`.
            return_vis: Whether the results include the overlays.
            overlays: Whether overlays are written to ``out_dir``.
            refine: Whether the edges of the classes move to edges of the image, see
                :func:`~mmseg_otseg.ops.refine`; it takes some tenths of a second. None means as the
                config's ``model.test_cfg.refine`` says, and False without it.
            layout: ``"masks"``, or ``"own_data"`` for a folder that can be trained with.
            coco: Whether ``out_dir`` also gets the masks in COCO's format.

        Yields:
            The result of every image, in the order of the inputs.

        Raises:
            UserError: If an input is neither a path nor an array, an option is out of range, a
                folder holds no image, or the class names are invalid; at the end, if no image could
                be segmented.
        """
        if none_below is not None and not 0 <= none_below <= 1:
            raise UserError(f"none_below must be within 0..1, got {none_below}")
        if layout not in LAYOUTS:
            raise UserError(f"layout must be one of {', '.join(LAYOUTS)}, got {layout!r}")
        if coco:
            import pycocotools.mask  # noqa: F401  missing, it is missed now rather than later
        images, left_out = find_images(inputs)
        for path in left_out:
            kind = "a folder, not searched" if os.path.isdir(path) else "not an image suffix"
            logger.warning("left out %s: %s", path, kind)
        named = self.for_classes(classes)
        if none_below is None:
            none_below = (getattr(named.model, "test_cfg", None) or {}).get("none_below")
        if named.warning:
            logger.warning(named.warning)
        out = None
        if out_dir is not None and out_dir != "":
            settings = {**self.settings(named.model, refine), "none_below": none_below}
            out = OutputFolder(out_dir, images, named.names, named.palette, settings, layout, coco)
        return self._results(named, images, refine, out, none_below, overlays, return_vis)

    def _results(
        self,
        named: ModelForClasses,
        images: list[str | np.ndarray],
        refine: bool | None,
        out: OutputFolder | None,
        none_below: float | None,
        overlays: bool,
        return_vis: bool,
    ) -> Iterator[Segmented]:
        """The result of each image, which is written to the folder first."""
        names = named.names if none_below is None else (*named.names, NONE_NAME)
        reasons = []
        with out or nullcontext():
            for number, source in enumerate(images):
                name = source if isinstance(source, str) else f"array {number}"
                try:
                    image, size = read_image(source)
                    values = self.predict(image, named.model, refine)
                except ImportError:
                    raise
                except Exception as error:  # one image must not stop the others
                    reason = " ".join(str(error).split()) or type(error).__name__
                    reasons.append(f"{name}: {reason}")
                    logger.warning("skipped %s", reasons[-1])
                    yield Segmented(name, None, None, names, reason)
                    continue
                mask, overlay = labels_at_size(values, size, none_below, named.align_corners), None
                if return_vis or (out is not None and overlays):
                    overlay = paint(image, mask, named.names, named.palette)
                if out is not None:
                    out.save(source, mask, overlay if overlays else None)
                yield Segmented(name, mask, overlay if return_vis else None, names)
        if len(reasons) == len(images):
            raise UserError(
                f"none of the {len(images)} images could be segmented. First error: {reasons[0]}"
            )


def check_memory(names: int, size: Sequence[int]) -> None:
    """Refuse maps that would fill the memory.

    Args:
        names: How many names have maps.
        size: Rows and columns of the maps.

    Raises:
        UserError: If they have more than ``MAX_VALUES`` values.
    """
    most = MAX_VALUES // (size[0] * size[1])
    if names > most:
        raise UserError(
            f"the maps of {names} names at {size[0]} x {size[1]} pixels need too much memory: give "
            f"at most {most} names in a call, or smaller images"
        )


def same_embedding_warning(names: Sequence[str], text: np.ndarray) -> str:
    """A warning about names that have the same text embedding; empty if there are none.

    Args:
        names: Q names of classes.
        text: Their text embeddings, shape (Q, N, D).
    """
    mean = text.astype(np.float32).mean(1)
    mean /= np.linalg.norm(mean, axis=1, keepdims=True)
    first = (mean @ mean.T > SAME_COSINE).argmax(1)  # the first name with the same embedding
    groups = [np.flatnonzero(first == index).tolist() for index in np.unique(first)]
    groups = [group for group in groups if len(group) > 1]
    if not groups:
        return ""
    listed = "; ".join(", ".join(names[index] for index in group) for group in groups)
    which = "any of these names" if len(groups[0]) == len(names) else "some of these names"
    return (
        f"This CLIP cannot tell {which} apart, as their text embeddings coincide: {listed:.500}. "
        "Which of them a pixel gets means nothing."
    )
