"""Reads every sample of a dataset once: its original labels and its training labels."""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from mmengine.utils import track_iter_progress
from PIL import Image
from torch.utils.data import DataLoader, Dataset

from mmseg_otseg.datasets import ZeroShotDataset
from mmseg_otseg.datasets.label_rule import LabelRule, SampleError
from mmseg_otseg.datasets.samplers import draw_seed, seeded_by
from mmseg_otseg.imaging import check_image_file

MOST_VALUES = 1000
UNREADABLE = (OSError, ValueError, SyntaxError, AttributeError, Image.DecompressionBombError)
FEW_VALUES = 40  # a gray photograph has more


@dataclass
class Sample:
    """The content of one sample.

    Attributes:
        image: Path of the image; empty for data that is not read from files.
        label: Path of the label file; empty for data that is not read from files.
        pixels: Pixels of each class index before anything is hidden, (256,) uint32; all 0 when the
            label map cannot be used.
        trained: Pixels of each label value after the whole pipeline, (256,) uint32.
        size: Height and width of the label map.
        values: At most 1000 values in the label file, only if the label map cannot be used.
        mode: Pillow's name of the label file's pixel format, or "JPEG".
        image_is_label: Whether the image has one channel and few values; checked only if the label
            map cannot be used.
        problem: Why the sample cannot be used; empty if it can.
        digest: Digest of the image file, to find equal images.
    """

    image: str = ""
    label: str = ""
    pixels: np.ndarray = field(default_factory=lambda: np.zeros(256, np.uint32))
    trained: np.ndarray = field(default_factory=lambda: np.zeros(256, np.uint32))
    size: tuple[int, ...] = ()
    values: tuple[int, ...] = ()
    mode: str = ""
    image_is_label: bool = False
    problem: str = ""
    digest: bytes = b""


def read_samples(dataset: ZeroShotDataset, workers: int = 0, seed: int = 0) -> list[Sample]:
    """Read every sample of a dataset once, with a progress bar.

    Args:
        dataset: The dataset; samples repeated by a wrapper in it are read only once.
        workers: Number of worker processes; 0 reads in this process.
        seed: Seed of the augmentation.
    """
    reader = _Reader(dataset, seed)
    loader = DataLoader(reader, batch_size=None, num_workers=workers)
    return list(track_iter_progress((iter(loader), len(reader)), file=sys.stderr))


class _Reader(Dataset):
    """The samples of a dataset as :class:`Sample`."""

    def __init__(self, dataset: ZeroShotDataset, seed: int) -> None:
        self.rule, self.seed = LabelRule(dataset.split), seed
        self.places = [(leaf, index) for leaf in dataset.leaves for index in range(len(leaf))]

    def __len__(self) -> int:
        return len(self.places)

    def __getitem__(self, number: int) -> Sample:
        leaf, index = self.places[number]
        info = leaf.get_data_info(index)
        sample = Sample(image=info.get("img_path", ""), label=info.get("seg_map_path", ""))
        if Path(sample.image).is_file():
            sample.digest = hashlib.sha256(Path(sample.image).read_bytes()).digest()
        sample.mode = _mode(sample.label)
        try:
            if sample.mode == "JPEG":
                raise SampleError(f"label file {sample.label} is a JPEG.")
            label = leaf.pipeline.read_label(info)
            self.rule.holds_unseen(label, sample.label)  # raises for wrong values
            sample.size, sample.pixels = label.shape, _count(label)
            with seeded_by(draw_seed(self.seed, number)):
                packed = leaf[index]
            sample.trained = _count(packed["data_samples"].gt_sem_seg.data.numpy())
        except SampleError as problem:
            sample.problem = str(problem)
            _look_at_label(sample)
        return sample


def named(samples: Sequence[Sample]) -> str:
    """The number of label files and the names of the first few."""
    what = "label file" if len(samples) == 1 else "label files"
    names = [Path(sample.label or sample.image).name for sample in samples]
    return f"{len(samples)} {what} ({first_of(names)})"


def first_of(items: Sequence) -> str:
    """The first five items, separated by commas."""
    return ", ".join(map(str, items[:5])) + (", ..." if len(items) > 5 else "")


def _count(label: np.ndarray) -> np.ndarray:
    counts = np.bincount(label.ravel().astype(np.uint8), minlength=256)
    return counts.astype(np.uint32)  # half the memory of int64, for many samples


def _look_at_label(sample: Sample) -> None:
    """Record the label file's own values, for the message about it."""
    sample.values = tuple(_values(sample.label)[:MOST_VALUES])
    sample.image_is_label = 0 < len(_values(sample.image)) < FEW_VALUES


def _mode(path: str) -> str:
    """Pixel format of an image file, or "JPEG"; empty if it is not an image file."""
    try:
        check_image_file(path)
        with Image.open(path) as image:
            return "JPEG" if image.format == "JPEG" else image.mode
    except UNREADABLE:  # reading it will report why
        return ""


def _values(path: str) -> list[int]:
    """The values in a file that has one channel of integers."""
    try:
        check_image_file(path)
        with Image.open(path) as image:
            values = np.asarray(image)
    except UNREADABLE:  # reported in `problem`
        return []
    plain = values.ndim == 2 and np.issubdtype(values.dtype, np.integer)
    return np.unique(values).tolist() if plain else []
