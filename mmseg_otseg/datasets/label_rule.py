"""Checks label maps and hides unseen classes right after reading."""

from __future__ import annotations

import os

import numpy as np
from PIL import Image

from mmseg_otseg.errors import UserError
from mmseg_otseg.structures import IGNORED, ClassSplit


class SampleError(UserError):
    """A sample cannot be used; the message names its files and the remedy."""


class LabelRule:
    """Checks label maps and hides the unseen classes in them.

    Args:
        split: The class split, with K classes.
        hide_as: The label for pixels of unseen classes, 255 or 254; None hides nothing.
    """

    def __init__(self, split: ClassSplit, hide_as: int | None = None) -> None:
        self.num_classes = split.num_classes
        self._allowed = np.zeros(256, dtype=bool)
        self._allowed[: split.num_classes] = True
        self._allowed[IGNORED] = True
        self._unseen = np.array(split.unseen, dtype=np.int64)
        self._table = np.arange(256, dtype=np.uint8)
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
            SampleError: If the shape is not (H, W), or a value is not 0..K-1 or 255.
        """
        self._present(label, path)
        return self._table[label]

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
        wide = _wide_values(path, label) if label.dtype == np.uint8 else label
        if wide is not None:
            values = np.unique(wide)
            if values.size and (values[0] < 0 or values[-1] > 255):
                raise SampleError(self._message(values[(values < 0) | (values > 255)], path))
        present = np.bincount(label.astype(np.uint8, copy=False).ravel(), minlength=256) > 0
        wrong = np.flatnonzero(present & ~self._allowed)
        if wrong.size:
            raise SampleError(self._message(wrong, path))
        return present

    def _message(self, values: np.ndarray, path: str) -> str:
        shown = ", ".join(str(value) for value in values[:10]) + (
            ", ..." if len(values) > 10 else ""
        )
        return (
            f"label file {path} holds the values {shown}, but with {self.num_classes} classes only "
            f"0..{self.num_classes - 1} and {IGNORED} (ignored) are allowed. Correct the file, or "
            "check `reduce_zero_label` (is 0 the background?) and the classes of the split."
        )


def _no_map(path: str, shape: tuple[int, ...]) -> str:
    return (
        f"label file {path} holds an array of shape {shape}, not one class index per pixel. "
        "Convert color images to single-channel class indices."
    )


def _wide_values(path: str, label: np.ndarray) -> np.ndarray | None:
    """The values of a label file with more than 8 bits, which loaders would wrap to 0..255.

    Args:
        path: The label file.
        label: The label map as loaded, (H, W).

    Returns:
        The values, (H, W); None if the file has 8 bits or is not an image file.

    Raises:
        SampleError: If it is a color image one pixel high or wide, which mmseg's loader turns into
            a map with three columns.
    """
    if not os.path.isfile(path):
        return None
    try:
        with Image.open(path) as image:  # reads the header only
            shape = (image.height, image.width, len(image.getbands()))
            if shape[2] > 1 and 1 in shape[:2] and label.shape != shape[:2]:
                raise SampleError(_no_map(path, shape))
            return np.asarray(image) if image.mode[0] in "IF" else None
    except OSError:  # not an image format; the dataset's loader can read it
        return None
