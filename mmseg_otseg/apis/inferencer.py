"""Images and class names in, masks and overlays out."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator, Mapping, Sequence
from threading import Lock
from typing import Any, NamedTuple

import numpy as np
import torch
from mmengine.config import Config
from mmengine.device import get_device
from mmengine.logging import print_log

from mmseg_otseg.imaging import (
    NONE_NAME,
    OutputFolder,
    class_names,
    find_images,
    labels_at_size,
    paint,
    read_image,
)
from mmseg_otseg.imaging.reading import Source
from mmseg_otseg.structures import ClassSplit, SplitLike

from .loading import array_pipeline, load_config, load_model, set_precision
from .vocabulary import with_classes


class Segmented(NamedTuple):
    """What became of one image.

    Attributes:
        name: Its path, or which array of the inputs it was.
        mask: Class indices (H, W), uint8 or uint16; None if the image was skipped.
        overlay: RGB values (h, w, 3), uint8, if asked for.
        classes: Class names by index.
        reason: Why it was skipped.
    """

    name: str
    mask: np.ndarray | None
    overlay: np.ndarray | None
    classes: tuple[str, ...]
    reason: str = ""


class _Job(NamedTuple):
    """An image on its way through the model."""

    number: int
    image: np.ndarray
    size: tuple[int, int]
    data: dict[str, Any]


class OTSegInferencer:
    """Segments images into classes that are named in the call.

    Several threads may use one inferencer, and change the classes of its ``model``: every call
    keeps the vocabulary it began with.

    Args:
        model: Config file, or a loaded config.
        weights: Checkpoint; None leaves the parts that train as they are built.
        device: Where to run; None is the GPU if there is one.
        precision: What CLIP's towers run in, ``"fp32"``, ``"bf16"`` or ``"fp16"``; None is what the
            config says. A checkpoint fits each of them.

    Raises:
        TypeError: If ``model`` is no config.
        ValueError: If the config has no test pipeline, the model no vocabulary, or there is no such
            precision.

    Example:
        >>> inferencer = OTSegInferencer("configs/otseg/voc_512.py", "voc.pth")
        >>> inferencer("photos/", classes="cat, sofa", out_dir="out")["classes"]
        ('cat', 'sofa')
    """

    def __init__(
        self,
        model: str | os.PathLike | Config | Mapping[str, Any],
        weights: str | os.PathLike | None = None,
        device: str | None = None,
        precision: str | None = None,
    ) -> None:
        self.cfg = load_config(model)
        if precision is not None:
            set_precision(self.cfg.model, precision)
        self.pipeline = array_pipeline(self.cfg)
        self.model = load_model(self.cfg, weights).to(device or get_device()).eval()
        self._lock = Lock()
        self._last: tuple[Any, ...] | None = None

    def __call__(
        self,
        inputs: Source | Sequence[Source],
        classes: str | Sequence[str] | SplitLike | None = None,
        **options: Any,
    ) -> dict[str, Any]:
        """Segment images and keep all results; :meth:`segment` gives them one by one.

        Args:
            inputs, classes, options: As in :meth:`segment`.

        Returns:
            Lists with an entry for every image, in the order of the inputs: ``predictions``, class
            indices (H, W), None for an image that was skipped; ``visualization``, overlays, None
            where not asked for; and ``names``. Also ``classes``, names by index, and ``skipped``,
            the names of the images that were skipped.

        Raises:
            TypeError, ValueError: As :meth:`segment`.
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
        classes: str | Sequence[str] | SplitLike | None = None,
        none_below: float | None = None,
        out_dir: str | os.PathLike | None = None,
        return_vis: bool = False,
        batch_size: int = 1,
        opacity: float = 0.6,
        overlays: bool = True,
    ) -> Iterator[Segmented]:
        """Segment images one after the other; of those that are done none is kept in memory.

        An image that cannot be read or segmented is skipped, and named in the log.

        Args:
            inputs: A path, a folder (its images, sorted), an image as an array (BGR, 0..255, also
                with an alpha channel, or grey), or a list of these.
            classes: Class names, also as in ``"cat, sofa"``, or a split, see :func:`set_classes`,
                for this call; None is what the model knows.
            none_below: Pixels whose best value (a probability, less the bias for seen classes) is
                below this become the extra class "none of these", of index K.
            out_dir: Where masks (``pred/``) and overlays (``vis/``) go, each as soon as it is done,
                see :class:`~mmseg_otseg.imaging.OutputFolder`.
            return_vis: Whether the results have the overlays.
            batch_size: How many images of one size go through the model at once.
            opacity: How much the classes cover in overlays, 0..1.
            overlays: Whether overlays are written to ``out_dir``.

        Yields:
            The result of every image, in the order of the inputs.

        Raises:
            TypeError: If an input is no path and no array.
            ValueError: If an option is out of range, a folder holds no image, or the class names
                make no sense; at the end, if not one image could be segmented.
        """
        if none_below is not None and not 0 <= none_below <= 1:
            raise ValueError(f"none_below must be within 0..1, got {none_below}")
        if not 0 <= opacity <= 1:
            raise ValueError(f"opacity must be within 0..1, got {opacity}")
        if not isinstance(batch_size, int) or batch_size < 1:
            raise ValueError(f"batch_size must be a whole number from 1 on, got {batch_size!r}")
        images, left_out = find_images(inputs)
        for path in left_out:
            kind = "folder, not searched" if os.path.isdir(path) else "no image by its suffix"
            print_log(f"left out {path}: {kind}", "current")
        out = None if out_dir is None or out_dir == "" else OutputFolder(out_dir, images)
        model = self._with_classes(classes)
        return self._results(
            model, images, none_below, out, batch_size, opacity, return_vis, overlays
        )

    def _results(
        self,
        model: Any,
        images: list[str | np.ndarray],
        none_below: float | None,
        out: OutputFolder | None,
        batch_size: int,
        opacity: float,
        return_vis: bool,
        overlays: bool,
    ) -> Iterator[Segmented]:
        names, palette = model.dataset_meta["classes"], model.dataset_meta["palette"]
        labels = names if none_below is None else (*names, NONE_NAME)
        first_reason, done = "", 0
        for job, values in self._predicted(model, images, batch_size):
            source = images[job.number]
            name = source if isinstance(source, str) else f"array {job.number}"
            if isinstance(values, Exception):
                reason = " ".join(str(values).split()) or type(values).__name__
                first_reason = first_reason or f"{name}: {reason}"
                print_log(f"skipped {name}: {reason}", "current", level=logging.WARNING)
                yield Segmented(name, None, None, labels, reason)
                continue
            mask = labels_at_size(values, job.size, none_below, model.align_corners)
            painted = return_vis or (out is not None and overlays)
            overlay = paint(job.image, mask, names, palette, opacity) if painted else None
            if out is not None:
                file = out.name(source)
                out.save_mask(file, mask)
                if overlays and overlay is not None:
                    out.save_overlay(file, overlay)
            done += 1
            yield Segmented(name, mask, overlay if return_vis else None, labels)
        if not done:
            raise ValueError(
                f"none of the {len(images)} images could be segmented, first {first_reason}"
            )

    def _predicted(
        self, model: Any, images: list[str | np.ndarray], batch_size: int
    ) -> Iterator[tuple[_Job, np.ndarray | Exception]]:
        """Class maps (K, h, w) at the model's size, or what went wrong, in the images' order."""
        batch: list[_Job] = []
        for number, source in enumerate(images):
            try:
                image, size = read_image(source)
                data = self.pipeline({"img": np.ascontiguousarray(image[..., ::-1])})
                if data is None:
                    raise ValueError("the test pipeline gave it up")
            except Exception as error:  # one image must not end the others
                yield from _predict(model, batch)
                batch = []
                yield _Job(number, np.empty(0), (0, 0), {}), error
                continue
            job = _Job(number, image, size, data)
            if batch and (len(batch) == batch_size or _shapes(job) != _shapes(batch[0])):
                yield from _predict(model, batch)
                batch = []
            batch.append(job)
        yield from _predict(model, batch)

    def _with_classes(self, classes: str | Sequence[str] | SplitLike | None) -> Any:
        """The model with a vocabulary of its own; that of the last call is kept."""
        if isinstance(classes, str):
            text = classes
            try:
                classes = ClassSplit.build(text)
            except ValueError:  # the name of no split
                classes = tuple(class_names(text))
        elif isinstance(classes, Sequence):
            classes = tuple(classes)
        model = with_classes(self.model)
        own = model.neck.text
        if classes is None or classes == own.split.classes:
            return model
        with self._lock:
            asked = (classes, self.model.data_preprocessor.device)
            if self._last is None or self._last[0] is not own or self._last[1] != asked:
                self._last = (own, asked, with_classes(model, classes))
            return self._last[2]


def _predict(model: Any, batch: list[_Job]) -> list[tuple[_Job, np.ndarray | Exception]]:
    """Class maps of images of one size; if the model fails, the error for each of them."""
    if not batch:
        return []
    packed = {key: [job.data[key] for job in batch] for key in ("inputs", "data_samples")}
    try:
        with torch.no_grad():
            data = model.data_preprocessor(packed, False)
            metas = [sample.metainfo for sample in data["data_samples"]]
            maps = model.inference(data["inputs"], metas).float().cpu().numpy()
        if not np.isfinite(maps).all():
            raise ValueError("the model's values are not finite: its weights may be damaged")
    except Exception as error:  # images too small for the model, or too many for the memory
        return [(job, error) for job in batch]
    return [(job, _unpadded(values, meta)) for job, values, meta in zip(batch, maps, metas)]


def _unpadded(values: np.ndarray, meta: Mapping[str, Any]) -> np.ndarray:
    """Class maps (K, h, w) without what the data preprocessor added to the image."""
    padding = meta.get("img_padding_size", meta.get("padding_size", (0, 0, 0, 0)))
    left, right, top, bottom = padding
    height, width = values.shape[1:]
    return values[:, top : height - bottom, left : width - right]


def _shapes(job: _Job) -> tuple[Any, Any]:
    """What must be the same for images to share a batch."""
    return job.data["inputs"].shape, job.data["data_samples"].metainfo.get("ori_shape")
