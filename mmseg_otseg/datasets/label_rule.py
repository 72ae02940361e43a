"""Checks label maps and hides unseen classes right after reading."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence

import numpy as np
from mmseg.datasets import COCOStuffDataset
from PIL import Image

from mmseg_otseg.errors import UserError
from mmseg_otseg.structures import IGNORED, ClassSplit

COCO_STUFF_IDS = 182  # the published label files hold 0..181, of which 171 are classes
COCO_STUFF_HINT = (
    "These look like COCO-Stuff's published label files, whose values have gaps. Convert them with "
    "mmseg's tools/dataset_converters/coco_stuff164k.py."
)


class SampleError(UserError):
    """A sample cannot be used; the message names its files and the remedy."""


class LabelRule:
    """Checks label maps and hides the unseen classes in them.

    Args:
        split: The class split, with K classes.
        hide_as: The label for pixels of unseen classes, 255 or 254; None hides nothing.
    """

    def __init__(self, split: ClassSplit, hide_as: int | None = None) -> None:
        self.classes = split.classes
        self._allowed = [*range(split.num_classes), IGNORED]
        self._unseen = list(split.unseen)
        self._table = np.arange(IGNORED + 1, dtype=np.uint8)
        if hide_as is not None:
            self._table[self._unseen] = hide_as

    def __call__(self, label: np.ndarray, path: str) -> np.ndarray:
        """Check a label map and hide the unseen classes.

        Args:
            label: Class indices, (H, W), 255 = ignored.
            path: The file it was read from, for messages.

        Returns:
            The labels to train or test with, (H, W), uint8.

        Raises:
            SampleError: If the shape is not (H, W), or a value is not 0..K-1 or 255, or the reader
                has changed the values of the file.
        """
        self._present(label, path)
        return self._table[label.astype(np.uint8, copy=False)]

    def holds_unseen(self, label: np.ndarray, path: str) -> bool:
        """Whether any pixel of a label map (H, W) belongs to an unseen class.

        Raises:
            SampleError: As in a call.
        """
        return bool(self._present(label, path)[self._unseen].any())

    def _present(self, label: np.ndarray, path: str) -> np.ndarray:
        """Which of the values 0..255 occur, shape (256,), bool; raise if one is not allowed."""
        if label.ndim != 2:
            raise SampleError(_no_map(path, label.shape))
        wide = wide_values(path, label.shape) if label.dtype == np.uint8 else label
        # Counting 8-bit values is faster than sorting them.
        values = np.flatnonzero(np.bincount(label.ravel())) if wide is None else np.unique(wide)
        if (values != np.rint(values)).any():  # NaN differs, too
            raise SampleError(
                f"label file {path} holds numbers that are not integers. Save class indices as "
                "8-bit integers."
            )
        wrong = values[~np.isin(values, self._allowed)]
        if wrong.size:
            number = len(self.classes)
            shown = ", ".join(map(str, wrong[:10])) + (", ..." if len(wrong) > 10 else "")
            hint = (
                COCO_STUFF_HINT
                if is_raw_coco_stuff(self.classes, wrong)
                else "Correct the file, or check `reduce_zero_label` (is 0 the background?) and "
                "the classes of the split."
            )
            raise SampleError(
                f"label file {path} holds the values {shown}, but with {number} classes only "
                f"0..{number - 1} and {IGNORED} (ignored) are allowed. {hint}"
            )
        present = np.zeros(IGNORED + 1, bool)
        present[values.astype(int)] = True
        return present


def is_raw_coco_stuff(classes: tuple[str, ...], wrong: Sequence[int] | np.ndarray) -> bool:
    """Whether values that are not classes are those of COCO-Stuff's unconverted label files."""
    return classes == tuple(COCOStuffDataset.METAINFO["classes"]) and max(wrong) < COCO_STUFF_IDS


def wide_values(path: str, shape: tuple[int, ...]) -> np.ndarray | None:
    """The values of a label file with more than 8 bits, which mmseg's loader wraps to 0..255.

    Args:
        path: The label file.
        shape: Shape of the label map as loaded.

    Returns:
        Numbers, (H, W); None if the file has 8 bits or fewer, or Pillow does not know its format.

    Raises:
        SampleError: If readers change the values: gray of 2 or 4 bits, which is scaled to 0..255,
            inverted gray, and colors in an image one pixel high or wide.
    """
    if not os.path.isfile(path):
        return None
    try:
        with Image.open(path) as image:  # reads the header only
            size = (image.height, image.width, len(image.getbands()))
            layout = image.tile[0][3] if image.tile else None  # a name, or a tuple that begins so
            layout = layout[0] if isinstance(layout, tuple) else layout
            values = np.asarray(image) if image.mode[0] in "IF" else None
    except OSError:  # not an image format; the dataset's own loader can read it
        return None
    if size[2] > 1 and 1 in size[:2] and shape != size[:2]:
        # mmseg's loader drops axes of length 1, so three colors would pass as three columns
        raise SampleError(_no_map(path, size))
    if re.match(r"L;[24]|[1L];I", str(layout)):
        raise SampleError(
            f"label file {path} stores gray values with 2 or 4 bits, or inverted, and readers "
            "change such values. Save it with 8 bits."
        )
    return values


def _no_map(path: str, shape: tuple[int, ...]) -> str:
    return (
        f"label file {path} holds an array of shape {shape}, not one class index per pixel. "
        "Convert color images to single-channel class indices."
    )
