"""Sheets that show labels and predictions, and how the prompts of a class divide up an image."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from textwrap import fill
from typing import NamedTuple

import numpy as np
from matplotlib import patheffects
from matplotlib.axes import Axes
from matplotlib.colors import to_rgba_array
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from PIL import Image

from mmseg_otseg.errors import UserError
from mmseg_otseg.imaging import heat
from mmseg_otseg.inference.inspection import Inspection
from mmseg_otseg.structures import ignored_label

CELL = 2.6  # inches
MAX_PROMPTS = 8
DRAWN_SIDE = 320  # pixels of an image's longer side under smooth maps
HATCH = "////"
MIN_NAMED = 0.01  # of the image
GRAY = 238  # of pixels without a class
PROMPT_COLORS = (
    *("#4477aa", "#ee6677", "#228833", "#b8a030"),
    *("#3aa8cc", "#aa3377", "#888888", "#222222"),
)


class Row(NamedTuple):
    """One row of a sheet: an image, its labels and its predictions.

    Attributes:
        image: RGB values, (h, w, 3), uint8.
        label: Labels (H, W), as of a ZeroShotDataset; None if the labels are not known.
        predictions: By the title of their column: class indices of the same size; K and more, as
            for "none of these", stay gray.
    """

    image: np.ndarray
    label: np.ndarray | None
    predictions: Mapping[str, np.ndarray]


def segmentation_sheet(
    rows: Sequence[Row],
    names: Sequence[str],
    palette: Sequence[Sequence[int]],
    unseen: Sequence[int],
) -> Figure:
    """Images, truth and predictions side by side, and how well each unseen class is met.

    Unseen classes are hatched and named; below a prediction stands the IoU of each that occurs in
    the image's truth, in percent, over the pixels that the truth does not ignore.

    Args:
        rows: One for each image, with predictions of the same titles.
        names: The K class names.
        palette: Their colors, RGB.
        unseen: Indices of the unseen classes.
    """
    labeled = any(row.label is not None for row in rows)
    titles = ["image", *(["truth"] if labeled else []), *rows[0].predictions]
    size = (CELL * len(titles), (CELL + 0.45) * len(rows) + 0.9)
    figure = Figure(figsize=size, layout="constrained")
    grid = figure.subplots(len(rows), len(titles), squeeze=False)
    shown: set[int] = set()
    for line, row in zip(grid, rows):
        for axes in line:
            axes.set_axis_off()
        line[0].imshow(row.image)
        truth = {} if row.label is None else {"truth": row.label}
        for title, labels in {**truth, **row.predictions}.items():
            axes = line[titles.index(title)]
            draw_label_map(axes, labels, palette, np.isin(labels, list(unseen)), names)
            shown |= set(np.unique(labels).tolist())
            if row.label is not None and title != "truth":
                axes.text(
                    *(0.5, -0.02, fill(_scores(labels, row.label, names, unseen), 36)),
                    transform=axes.transAxes,
                    ha="center",
                    va="top",
                    fontsize=9,
                    in_layout=False,  # or a long line takes the room of the images
                )
    for axes, title in zip(grid[0], titles):
        axes.set_title(title, fontsize=12)
    draw_legend(figure, shown, names, palette, unseen)
    return figure


def draw_label_map(
    axes: Axes,
    labels: np.ndarray,
    palette: Sequence[Sequence[int]],
    hatched: np.ndarray,
    names: Sequence[str] | None = None,
) -> None:
    """Draw class indices in their colors, pixels of no class gray, and hatch a region.

    Args:
        axes: Where to draw.
        labels: Class indices (H, W).
        palette: The color of each class, RGB.
        hatched: The region, (H, W), bool.
        names: The class names, to write those of the region's classes; None writes none.
    """
    colors = np.full((np.iinfo(np.uint16).max + 1, 3), GRAY, np.uint8)
    colors[: len(palette)] = palette
    axes.imshow(colors[labels], interpolation="nearest")
    if not hatched.any():
        return
    axes.contourf(hatched, levels=[0.5, 1.5], colors="none", hatches=[HATCH])
    _outline(axes, hatched)
    if names is None:
        return
    for label in np.unique(labels[hatched]).tolist():
        places = np.argwhere(labels == label)
        if len(places) < MIN_NAMED * labels.size:
            continue
        row, column = places[np.square(places - places.mean(0)).sum(1).argmin()]
        written = axes.text(
            column, row, names[label], ha="center", va="center", fontsize=7, weight="bold"
        )
        written.set_path_effects([patheffects.withStroke(linewidth=2.5, foreground="white")])


def draw_legend(
    figure: Figure,
    shown: Iterable[int],
    names: Sequence[str],
    palette: Sequence[Sequence[int]],
    unseen: Sequence[int],
) -> None:
    """List the classes among the indices below a figure, the unseen ones hatched."""
    handles = [
        Patch(
            facecolor="#{:02x}{:02x}{:02x}".format(*palette[index]),
            edgecolor="black" if index in unseen else "none",
            hatch=HATCH if index in unseen else None,
            label=f"{names[index]} (unseen)" if index in unseen else names[index],
        )
        for index in sorted(shown)
        if index < len(names)
    ]
    figure.legend(handles=handles, loc="outside lower center", ncols=5, fontsize=8, frameon=False)


def plan_sheet(
    inspections: Sequence[Inspection],
    labels: Sequence[Sequence[int]],
    truths: Sequence[np.ndarray | None],
) -> Figure:
    """Where each prompt of a class takes its mass from.

    One row for each class of an image: the image with the class outlined, as it is labeled or else
    predicted; which prompt takes the most of every place; and each prompt's share, stretched to its
    own range.

    Args:
        inspections: The images, as a model with a transport plan sees them.
        labels: For each image, the classes to draw, as indices.
        truths: For each image, its labels (h, w), class indices, or None if it has none.

    Raises:
        UserError: If the model has no transport plan.
    """
    lines = [
        (inspection, label, truth)
        for inspection, chosen, truth in zip(inspections, labels, truths)
        for label in chosen
    ]
    prompts = inspections[0].prompts[:MAX_PROMPTS]
    columns = 2 + len(prompts)
    figure = Figure(figsize=(1.75 * columns, 2.1 * len(lines) + 0.5), layout="constrained")
    grid = figure.subplots(len(lines), columns, squeeze=False)
    for (inspection, label, truth), line in zip(lines, grid):
        if inspection.share is None:
            raise UserError(
                "this model's head has no transport plan to draw: take a model with MPSAHead"
            )
        share, image = inspection.share[label], inspection.image
        factor = DRAWN_SIDE / max(image.shape[:2])
        size = [max(1, round(side * factor)) for side in image.shape[1::-1]]  # width, height
        image = np.asarray(Image.fromarray(image).resize(size, Image.Resampling.BICUBIC))
        for axes in line:
            axes.set_axis_off()
        line[0].imshow(image)
        if truth is None:
            found = inspection.labels(size=image.shape[:2])
        else:
            whole = Image.fromarray(truth.astype(np.int32))
            found = np.asarray(whole.resize(size, Image.Resampling.NEAREST))
        _outline(line[0], found == label, "black", 3.0)
        _outline(line[0], found == label, "white", 1.5)
        unseen = "" if inspection.seen[label] else "\n(unseen)"
        line[0].set_title(inspection.names[label] + unseen, fontsize=9)
        line[1].imshow(_largest_share(image, share[: len(prompts)]))
        line[1].set_title("takes the most", fontsize=8)
        for number, (prompt, part) in enumerate(zip(prompts, share)):
            axes = line[2 + number]
            axes.imshow(heat(image, part))
            axes.set_title(
                f"{prompt}\n{part.min():.0%} to {part.max():.0%}",
                fontsize=7,
                color=PROMPT_COLORS[number % len(PROMPT_COLORS)],
            )
    return figure


def _largest_share(image: np.ndarray, share: np.ndarray) -> np.ndarray:
    """The image in the color of the prompt that takes the most of each place."""
    size = (image.shape[1], image.shape[0])
    upsampled = [
        np.asarray(Image.fromarray(part).resize(size, Image.Resampling.BICUBIC))
        for part in share.astype(np.float32)
    ]
    colors = (255 * to_rgba_array(PROMPT_COLORS)[:, :3]).round().astype(np.uint8)
    most = np.argmax(upsampled, axis=0) % len(colors)
    return np.asarray(Image.blend(Image.fromarray(image), Image.fromarray(colors[most]), 0.65))


def _outline(axes: Axes, region: np.ndarray, color: str = "black", width: float = 1.0) -> None:
    if region.any() and not region.all():
        axes.contour(region, levels=[0.5], colors=color, linewidths=width)


def _scores(
    labels: np.ndarray, truth: np.ndarray, names: Sequence[str], unseen: Sequence[int]
) -> str:
    """The IoU of each unseen class in the truth of this image, in percent."""
    parts = []
    for label in sorted(set(np.unique(truth).tolist()) & set(unseen)):
        found, true = (labels == label) & (truth != ignored_label(len(names))), truth == label
        parts.append(f"{names[label]} {100 * (found & true).sum() / (found | true).sum():.0f}")
    return f"IoU: {', '.join(parts)}" if parts else ""
