"""What every inferencer does with images, whatever model it asks."""

from __future__ import annotations

import logging
import os
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from .labels import NONE_NAME, labels_at_size
from .outputs import OutputFolder
from .overlays import paint
from .reading import Source, find_images


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


class Prediction(NamedTuple):
    """What a model says of an image.

    Attributes:
        number: Which of the images it is.
        image: RGB values (H, W, 3), uint8, perhaps of a reduced image.
        size: Rows and columns of the whole image.
        values: Class maps (K, h, w) at the model's size, the largest value wins; or what went
            wrong.
    """

    number: int
    image: np.ndarray
    size: tuple[int, int]
    values: np.ndarray | Exception


class Named(NamedTuple):
    """A model that knows the classes of a call.

    Attributes:
        model: What :meth:`Segmenter.predict_all` is given.
        names: The K class names.
        palette: Their colors, RGB.
        align_corners: How its class maps are resized.
    """

    model: Any
    names: tuple[str, ...]
    palette: Sequence[Sequence[int]]
    align_corners: bool = False


class Segmenter(ABC):
    """Segments images into classes that are named in the call; the model is left to subclasses."""

    @abstractmethod
    def with_classes(self, classes: Any) -> Named:
        """A model for the classes of a call; None is those it knows."""

    @abstractmethod
    def predict_all(
        self, model: Any, images: Sequence[str | np.ndarray], batch_size: int
    ) -> Iterator[Prediction]:
        """What a model says of each image, in their order."""

    def report(self, message: str, level: int = logging.INFO) -> None:
        """Tell the user of an image that is left out."""
        logging.getLogger("mmseg_otseg").log(level, message)

    def __call__(
        self,
        inputs: Source | Sequence[Source],
        classes: str | Sequence[str] | Mapping[str, Any] | None = None,
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
        classes: str | Sequence[str] | Mapping[str, Any] | None = None,
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
                with an alpha channel, or gray), or a list of these.
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
            self.report(f"left out {path}: {kind}")
        out = None if out_dir is None or out_dir == "" else OutputFolder(out_dir, images)
        named = self.with_classes(classes)
        return self._results(
            named, images, none_below, out, batch_size, opacity, return_vis, overlays
        )

    def _results(
        self,
        named: Named,
        images: list[str | np.ndarray],
        none_below: float | None,
        out: OutputFolder | None,
        batch_size: int,
        opacity: float,
        return_vis: bool,
        overlays: bool,
    ) -> Iterator[Segmented]:
        names = named.names
        labels = names if none_below is None else (*names, NONE_NAME)
        first_reason, done = "", 0
        for prediction in self.predict_all(named.model, images, batch_size):
            source, values = images[prediction.number], prediction.values
            name = source if isinstance(source, str) else f"array {prediction.number}"
            if isinstance(values, Exception):
                reason = " ".join(str(values).split()) or type(values).__name__
                first_reason = first_reason or f"{name}: {reason}"
                self.report(f"skipped {name}: {reason}", logging.WARNING)
                yield Segmented(name, None, None, labels, reason)
                continue
            mask = labels_at_size(values, prediction.size, none_below, named.align_corners)
            painted = return_vis or (out is not None and overlays)
            overlay = None
            if painted:
                overlay = paint(prediction.image, mask, names, named.palette, opacity)
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
