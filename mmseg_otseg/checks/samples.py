"""Reads every sample of a dataset once, and draws some as the model sees them."""

from __future__ import annotations

import hashlib
import sys
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from mmengine.utils import track_iter_progress
from mmseg.datasets.transforms import PackSegInputs
from PIL import Image
from torch.utils.data import DataLoader, Dataset

from mmseg_otseg.datasets import ZeroShotDataset
from mmseg_otseg.datasets.guarded_pipeline import UNHIDDEN_LABEL
from mmseg_otseg.datasets.label_rule import SampleError
from mmseg_otseg.datasets.samplers import augmentation_seed, seeded_by
from mmseg_otseg.imaging import palette_for
from mmseg_otseg.inference.sheets import draw_label_map, draw_legend

MAX_VALUES = 1000  # kept of each label file
MAX_DRAWN = 6  # images of each subset
CELL = 3.0  # inches
UNREADABLE = (OSError, ValueError, SyntaxError, AttributeError, Image.DecompressionBombError)


@dataclass
class SampleSummary:
    """The content of one sample.

    Attributes:
        image: Path of the image; empty for data that is not read from files.
        label: Path of the label file; empty for data that is not read from files.
        pixels: Number of pixels of each class index that occurs, before anything is hidden; empty
            when the sample cannot be used.
        ignored: Number of ignored pixels.
        trained: Number of pixels of each label that occurs after the whole pipeline.
        size: Height and width of the label map.
        values: The values in the label file, only if some of them must not occur.
        wrong: Those of them, at most 1000.
        mode: Pillow's name of the label file's pixel format, or "JPEG"; empty if it has none.
        problem: Why the sample cannot be used; empty if it can.
        digest: Digest of the image file, to find equal images.
    """

    image: str = ""
    label: str = ""
    pixels: Counter[int] = field(default_factory=Counter)
    ignored: int = 0
    trained: Counter[int] = field(default_factory=Counter)
    size: tuple[int, ...] = ()
    values: tuple[int, ...] = ()
    wrong: tuple[int, ...] = ()
    mode: str = ""
    problem: str = ""
    digest: bytes = b""


class _Reader(Dataset):
    """The samples of a dataset as :class:`SampleSummary`, each augmented once."""

    def __init__(self, dataset: ZeroShotDataset) -> None:
        self.locations = dataset.sample_locations

    def __len__(self) -> int:
        return len(self.locations)

    def __getitem__(self, number: int) -> SampleSummary:
        leaf, index = self.locations[number]
        info = leaf.get_data_info(index)
        sample = SampleSummary(image=info.get("img_path", ""), label=info.get("seg_map_path", ""))
        if Path(sample.image).is_file():
            sample.digest = hashlib.sha256(Path(sample.image).read_bytes()).digest()
        try:
            with Image.open(sample.label) as file:  # reads the header only
                sample.mode = "JPEG" if file.format == "JPEG" else file.mode
        except UNREADABLE:  # reading the sample says why
            pass
        try:
            if sample.mode == "JPEG":
                raise SampleError(f"label file {sample.label} is a JPEG.")
            label = leaf.pipeline.read_label(info)
            with seeded_by(augmentation_seed(0, number)):
                packed = leaf[index]
            sample.trained = _count(packed["data_samples"].gt_sem_seg.data.numpy())
            sample.size, sample.pixels = label.shape, _count(label)
            sample.ignored = sample.pixels.pop(leaf.pipeline.rule.ignored, 0)
        except SampleError as problem:
            sample.problem = str(problem)
            sample.values = tuple(problem.values)
            sample.wrong = tuple(problem.wrong[:MAX_VALUES])
        return sample


def read_samples(dataset: ZeroShotDataset, workers: int = 0) -> list[SampleSummary]:
    """Read every sample of a dataset once, with a progress bar.

    Args:
        dataset: The dataset.
        workers: Number of worker processes; 0 reads in this process.
    """
    reader = _Reader(dataset)
    loader = DataLoader(reader, batch_size=None, num_workers=workers)
    return list(track_iter_progress((iter(loader), len(reader)), file=sys.stderr))


def _count(label: np.ndarray) -> Counter[int]:
    counts = np.bincount(label.ravel())
    occurring = np.flatnonzero(counts)
    return Counter(dict(zip(occurring.tolist(), counts[occurring].tolist())))


def pixels_per_class(samples: Iterable[SampleSummary]) -> Counter[int]:
    """Number of pixels of each class index that occurs in the samples."""
    total: Counter[int] = Counter()
    for sample in samples:
        total.update(sample.pixels)
    return total


def draw_samples(datasets: Mapping[str, ZeroShotDataset]) -> Figure | None:
    """Draw two rows for each subset of the data: some images and their labels, hidden ones hatched.

    Args:
        datasets: The data by subset name, with the same class split.

    Returns:
        The figure; None if no sample can be used.
    """
    drawn = {subset: _some(dataset) for subset, dataset in datasets.items()}
    drawn = {subset: samples for subset, samples in drawn.items() if samples}
    if not drawn:
        return None
    dataset = next(iter(datasets.values()))
    split, palette = dataset.split, palette_for(dataset.split.classes, dataset.metainfo)
    columns = max(map(len, drawn.values()))
    figure = Figure(figsize=(CELL * columns, CELL * 2 * len(drawn) + 1), layout="constrained")
    grid = figure.subplots(2 * len(drawn), columns, squeeze=False)
    for axes in grid.flat:
        axes.set_axis_off()
    present: set[int] = set()
    for row, (subset, samples) in enumerate(drawn.items()):
        unseen = split.unseen if datasets[subset].hide_as is not None else ()
        for column, (image, label) in enumerate(samples):
            grid[2 * row, column].imshow(image)
            draw_label_map(grid[2 * row + 1, column], label, palette, np.isin(label, unseen))
            present |= set(np.unique(label).tolist())
        grid[2 * row, 0].set_title(subset, loc="left")
    names = [f"{index} {name}" for index, name in enumerate(split.classes)]
    draw_legend(figure, present, names, palette, split.unseen)
    return figure


def _some(dataset: ZeroShotDataset) -> list[tuple[np.ndarray, np.ndarray]]:
    """Samples after the pipeline, spread evenly over the data; those that fail are left out.

    Returns:
        Images (h, w, 3), RGB, uint8, and class indices (h, w) with nothing hidden.
    """
    locations, samples = dataset.sample_locations, []
    for number in (
        np.linspace(0, len(locations) - 1, min(MAX_DRAWN, len(locations))).astype(int).tolist()
    ):
        leaf, index = locations[number]
        try:
            with seeded_by(augmentation_seed(0, number)):
                results = leaf.pipeline.run_with_unhidden(
                    leaf.get_data_info(index), lambda step: not isinstance(step, PackSegInputs)
                )
        except SampleError:
            continue
        image = np.clip(results["img"], 0, 255).astype(np.uint8)[..., ::-1]  # BGR to RGB
        samples.append((image, results[UNHIDDEN_LABEL]))
    return samples
