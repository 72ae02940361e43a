"""Maps the values of label files to labels, and hides unseen classes right after reading."""

from __future__ import annotations

import re
from collections.abc import Sequence
from io import BytesIO
from typing import Any

import mmcv
import numpy as np
from mmengine import fileio
from mmseg.datasets import COCOStuffDataset
from mmseg.datasets.transforms import LoadAnnotations
from PIL import Image

from mmseg_otseg.errors import UserError
from mmseg_otseg.structures import IGNORED, MAX_CLASSES, ClassSplit, ignored_label

COCO_STUFF_IDS = 182  # the published label files hold 0..181, of which 171 are classes
COCO_STUFF_HINT = (
    "These look like COCO-Stuff's published label files, whose values have gaps. Convert them with "
    "mmseg's tools/dataset_converters/coco_stuff164k.py."
)


class SampleError(UserError):
    """A sample cannot be used; the message names its files and the remedy.

    Attributes:
        values: The values in its label file, if some of them must not occur.
        wrong: Those that must not.
    """

    def __init__(self, message: str, values: Sequence[int] = (), wrong: Sequence[int] = ()) -> None:
        super().__init__(message)
        self.values, self.wrong = values, wrong


def background_value(dataset: Any) -> int | None:
    """The value that a dataset's label files have for pixels of no class; None if none has."""
    background = getattr(dataset, "background", None)
    return 0 if background is None and getattr(dataset, "reduce_zero_label", False) else background


class LabelRule:
    """What the values of a dataset's label files mean, and which labels training may see.

    The labels are class indices 0..K-1, 8-bit up to 254 of them. Pixels of the background are
    ignored, unless the split says that it counts; with ``"threshold"`` it counts only in testing.
    Which values the files have for it, and for ignored pixels, is known from the dataset.

    Args:
        split: The class split, with K classes.
        dataset: An mmseg dataset. Its ``ignore_index`` is a value in the files; where the default,
            255, is a class, 65535 takes its place.
        hide_as: The label for pixels of unseen classes; None hides nothing.

    Attributes:
        ignored: The label of ignored pixels, see :func:`~mmseg_otseg.structures.ignored_label`.

    Raises:
        UserError: If the dataset's ``ignore_index`` is the value of a class.
    """

    def __init__(self, split: ClassSplit, dataset: Any, hide_as: int | None = None) -> None:
        self.classes = split.foreground
        count, background = len(self.classes), background_value(dataset)
        tested = getattr(dataset, "test_mode", False)
        counts = split.background == "names" or (split.background == "threshold" and tested)
        self.ignored = ignored_label(count + counts)
        self._background = count if counts else self.ignored
        self.reduce_zero_label = getattr(dataset, "reduce_zero_label", False)
        self.label_map, old = getattr(dataset, "label_map", None), np.arange(count)
        if self.label_map:  # mmseg's, for some of the dataset's own classes
            known = type(dataset).METAINFO["classes"]
            old = np.array([known.index(name) for name in dataset.metainfo["classes"]])
        # Loaders of other formats return class indices and 255.
        self._of_loaders = self._table(np.arange(count), None, IGNORED)
        values = old + (0 if background is None else old >= background)
        ignored = getattr(dataset, "ignore_index", IGNORED)
        if ignored in values and ignored != IGNORED:
            raise UserError(
                f"ignore_index={ignored} of {type(dataset).__name__} is the value of the class "
                f"{self.classes[values.tolist().index(ignored)]!r}: remove it. For a background, "
                "set `background` (FolderDataset) or reduce_zero_label"
            )
        self._of_files = self._table(values, background, ignored)
        if self.label_map:
            dropped = np.setdiff1d(np.arange(len(known)), old)
            dropped += 0 if background is None else dropped >= background
            self._of_files[dropped] = self.ignored
        kind = np.uint8 if self.ignored == IGNORED else np.int32
        self._shown = np.arange(self.ignored + 1, dtype=kind)
        if hide_as is not None:
            self._shown[list(split.unseen)] = hide_as

    def _table(self, values: np.ndarray, background: int | None, ignored: int) -> np.ndarray:
        """The label of each value of 16 bits, int32; -1 for values that must not occur."""
        table = np.full(MAX_CLASSES + 1, -1, np.int32)
        table[MAX_CLASSES if ignored in values else ignored] = self.ignored
        table[values] = np.arange(len(values))
        if background is not None:
            table[background] = self._background
        return table

    def labels(self, values: np.ndarray, path: str, raw: bool) -> np.ndarray:
        """The labels of an image, with nothing hidden.

        Args:
            values: What a loader returned, (H, W), any type.
            path: The file it was read from, for messages.
            raw: Whether these are the values of the file, and not yet class indices.

        Returns:
            Labels, (H, W), uint8, or int32 if there are more than 254.

        Raises:
            SampleError: If the shape is not (H, W), or a value is none of those that may occur.
        """
        if values.ndim != 2:
            raise SampleError(
                f"label file {path} holds an array of shape {values.shape}, not one class index "
                "per pixel. Convert color images to single-channel class indices."
            )
        table = self._of_files if raw else self._of_loaders
        with np.errstate(invalid="ignore"):  # NaN
            index = values.astype(np.int64).clip(0, MAX_CLASSES)
        labels = table[index]
        if (unknown := (labels < 0) | (index != values)).any():
            wrong = np.unique(values[unknown])
            if (wrong != np.rint(wrong)).any():
                raise SampleError(
                    f"label file {path} holds numbers that are not integers. Save class indices as "
                    "integers."
                )
            known = np.unique(values).astype(int).tolist()
            raise SampleError(self._problem(path, wrong, table), known, wrong.astype(int).tolist())
        return labels.astype(self._shown.dtype, copy=False)

    def hide(self, labels: np.ndarray) -> np.ndarray:
        """Hide the unseen classes in the labels (H, W) that :meth:`labels` returned."""
        return self._shown[labels]

    def _problem(self, path: str, wrong: np.ndarray, table: np.ndarray) -> str:
        shown = ", ".join(map(str, wrong[:10])) + (", ..." if len(wrong) > 10 else "")
        allowed = np.flatnonzero(table >= 0)
        runs = np.split(allowed, np.flatnonzero(np.diff(allowed) > 1) + 1)
        ranges = " and ".join(
            f"{run[0]}..{run[-1]}" if len(run) > 1 else f"{run[0]}" for run in runs
        )
        hint = (
            COCO_STUFF_HINT
            if is_raw_coco_stuff(self.classes, wrong)
            else "Correct the file, or check `reduce_zero_label` (is 0 the background?), "
            "`ignore_index` of the dataset and the classes of the split."
        )
        return (
            f"label file {path} holds the values {shown}, but with {len(self.classes)} classes "
            f"only {ranges} are allowed. {hint}"
        )


class LoadLabels(LoadAnnotations):
    """mmseg's ``LoadAnnotations``, but the values stay as in the file, with 16 bits too.

    Args:
        plain: The loader that this one stands for.
    """

    def __init__(self, plain: LoadAnnotations) -> None:
        super().__init__(backend_args=plain.backend_args, imdecode_backend=plain.imdecode_backend)
        self.plain = plain

    def _load_seg_map(self, results: dict) -> None:
        content = fileio.get(results["seg_map_path"], backend_args=self.backend_args)
        _check_layout(content, results["seg_map_path"])
        values = mmcv.imfrombytes(content, flag="unchanged", backend=self.imdecode_backend)
        results["gt_seg_map"] = values[..., 0] if values.shape[2:] == (1,) else values
        results["seg_fields"].append("gt_seg_map")


def is_raw_coco_stuff(classes: Sequence[str], wrong: Sequence[int] | np.ndarray) -> bool:
    """Whether values that are not classes are those of COCO-Stuff's unconverted label files."""
    known = COCOStuffDataset.METAINFO["classes"]
    return tuple(classes) == tuple(known) and max(wrong) < COCO_STUFF_IDS


def _check_layout(content: bytes, path: str) -> None:
    """Refuse gray of 2 or 4 bits, which readers scale to 0..255, and inverted gray."""
    try:
        with Image.open(BytesIO(content)) as image:  # reads the header only
            layout = image.tile[0][3] if image.tile else None  # a name, or a tuple that begins so
    except OSError:  # not an image format; the decoder will say so, or read it
        return
    layout = layout[0] if isinstance(layout, tuple) else layout
    if re.match(r"L;[24]|[1L];I", str(layout)):
        raise SampleError(
            f"label file {path} stores gray values with 2 or 4 bits, or inverted, and readers "
            "change such values. Save it with 8 bits."
        )
