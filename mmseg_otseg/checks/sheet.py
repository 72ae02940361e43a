"""Draws training samples as the model sees them, and validation samples with their labels."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from mmseg.datasets.transforms import PackSegInputs

from mmseg_otseg.datasets import ZeroShotDataset
from mmseg_otseg.datasets.guarded_pipeline import WHOLE_LABEL
from mmseg_otseg.datasets.label_rule import SampleError
from mmseg_otseg.datasets.samplers import draw_seed, seeded_by
from mmseg_otseg.imaging import palette_for

MAX_IMAGES = 6  # of each subset
MAX_NAMES = 24  # in the legend
CELL = 3.0  # inches


def draw_samples(datasets: Mapping[str, ZeroShotDataset], seed: int = 0) -> Figure | None:
    """Draw two rows for each subset of the data: some images and their labels.

    Args:
        datasets: The data by subset name, with the same class split.
        seed: Seed of the augmentation.

    Returns:
        The figure; None if no sample can be used.
    """
    subsets = {subset: _samples(dataset, seed) for subset, dataset in datasets.items()}
    subsets = {subset: samples for subset, samples in subsets.items() if samples}
    if not subsets:
        return None
    dataset = next(iter(datasets.values()))
    split = dataset.split
    colors = np.array(palette_for(split.classes, dataset.metainfo), np.uint8)
    columns = max(map(len, subsets.values()))
    figure = Figure(figsize=(CELL * columns, CELL * 2 * len(subsets) + 1), layout="constrained")
    grid = figure.subplots(2 * len(subsets), columns, squeeze=False)
    for axes in grid.flat:
        axes.set_axis_off()
    present: set[int] = set()
    for row, (subset, samples) in enumerate(subsets.items()):
        for column, (image, label, hidden) in enumerate(samples):
            painted = np.full((*label.shape, 3), 255, np.uint8)  # pixels of no class stay white
            painted[label < len(colors)] = colors[label[label < len(colors)]]
            grid[2 * row, column].imshow(image)
            axes = grid[2 * row + 1, column]
            axes.imshow(painted)
            if hidden.any():
                axes.contourf(hidden, levels=[0.5, 1.5], colors="none", hatches=["////"])
            present |= set(np.unique(label).tolist())
        grid[2 * row, 0].set_title(subset, loc="left")
    handles: list[Any] = [
        Patch(
            facecolor=colors[index] / 255,
            hatch="////" if index in split.unseen else None,
            label=f"{index} {name}{' (unseen)' if index in split.unseen else ''}",
        )
        for index, name in enumerate(split.classes)
        if index in present
    ]
    handles.append(Patch(facecolor="white", edgecolor="black", label="ignored"))
    figure.legend(handles=handles[-MAX_NAMES:], loc="outside lower center", ncols=4)
    return figure


def _samples(
    dataset: ZeroShotDataset, seed: int
) -> list[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Samples after the pipeline, spread evenly over the data; those that fail are left out.

    Returns:
        For each sample: the image (h, w, 3), RGB, uint8; class indices (h, w) with nothing hidden;
        and where they are hidden from training (h, w), bool.
    """
    places = [(leaf, index) for leaf in dataset.leaves for index in range(len(leaf))]
    chosen = np.linspace(0, len(places) - 1, min(MAX_IMAGES, len(places))).astype(int)
    unseen = list(dataset.split.unseen) if dataset.hide_as is not None else []
    shown = []
    for place in chosen.tolist():
        leaf, index = places[place]
        try:
            with seeded_by(draw_seed(seed, place)):
                results = leaf.pipeline.run_whole(
                    leaf.get_data_info(index), lambda step: not isinstance(step, PackSegInputs)
                )
        except SampleError:
            continue
        image = np.clip(results["img"], 0, 255).astype(np.uint8)[..., ::-1]  # BGR to RGB
        label = results[WHOLE_LABEL]
        shown.append((image, label, np.isin(label, unseen)))
    return shown
