"""Predicts large images in windows and averages these, storing no full-size maps of all names."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from mmseg_otseg.errors import UserError
from mmseg_otseg.imaging import window_slices

WINDOW_BATCH = 4
MAX_WINDOW_VALUES = 2**26  # of all maps of the windows in a batch at the image's size: 256 MiB
MAX_VALUES = 2**20  # of all names in a tile, if none were left out: a CPU's cache holds them
GPU_FACTOR = 16  # more of them, as each tile is many small kernels
MIN_TILE = 16  # pixels a side

Window = tuple[slice, slice, Tensor]
Piece = tuple[slice, slice, Tensor, Tensor | None, Tensor | None]


def predict_windows(
    predict: Callable[[Tensor, list[dict]], Tensor],
    images: Tensor,
    metas: list[dict],
    test_cfg: Mapping[str, Any],
    maps: int = 1,
) -> list[Window]:
    """Predict whole images, or window by window, with the windows of mmseg's ``slide_inference``.

    Args:
        predict: Maps crops (n, 3, h', w') and their meta information to maps (n, Q, H', W').
        images: Shape (B, 3, h, w).
        metas: Meta information of each image.
        test_cfg: ``mode``, ``"whole"`` or ``"slide"``; and for the latter ``crop_size`` and
            ``stride`` (rows, columns), in pixels, and ``window_batch``: windows of an image in a
            forward pass, 4 if not given, and fewer where there are many maps.
        maps: Maps Q that ``predict`` returns.

    Returns:
        Rows and columns of each window in the images, and its maps (B, Q, H', W').
    """
    size = images.shape[2:]
    slides = test_cfg.get("mode", "whole") == "slide"
    crop, stride = (test_cfg[key] if slides else size for key in ("crop_size", "stride"))
    most = MAX_WINDOW_VALUES // (maps * crop[0] * crop[1])
    at_once = max(1, min(test_cfg.get("window_batch", WINDOW_BATCH), most))
    rows, columns = map(window_slices, size, crop, stride)
    places = [(row, column) for row in rows for column in columns]
    found: list[Window] = []
    for start in range(0, len(places), at_once):
        batch = places[start : start + at_once]
        crops = torch.cat([images[:, :, row, column] for row, column in batch])
        crop_metas = [dict(meta, img_shape=crops.shape[2:]) for meta in metas] * len(batch)
        parts = predict(crops, crop_metas).split(len(images))
        found += [(row, column, part) for (row, column), part in zip(batch, parts)]
    return found


@dataclass(frozen=True)
class ImageMaps:
    """The maps of an image; any part of them can be resized to the image when it is needed.

    Windows keep what the head made of them, at the resolution of patches. Only the parts that are
    asked for are resized.

    Attributes:
        size: Rows and columns (h, w) of the image.
        windows: Rows and columns of each window, and its maps (Q, h', w').
        activate: Turns resized maps (Q', rows, columns) of some names, indices or a slice, into
            their values, pixel by pixel; must not decrease. Windows are averaged afterwards.
        classes: The class of each name, (Q,), in increasing order, to take the largest value of
            the names of each; None leaves the names apart.
    """

    size: tuple[int, int]
    windows: Sequence[Window]
    activate: Callable[[Tensor, Any], Tensor] = lambda maps, names: maps
    classes: Tensor | None = None

    @classmethod
    def of(cls, maps: Tensor) -> ImageMaps:
        """Maps (Q, h, w) that have the size of the image."""
        height, width = maps.shape[1:]
        return cls((height, width), [(slice(0, height), slice(0, width), maps)])

    def upright(self, meta: Mapping[str, Any]) -> ImageMaps:
        """Undo the padding of the data preprocessor and the flip of the test pipeline.

        Args:
            meta: Meta information of the image.
        """
        padding = meta.get("img_padding_size", meta.get("padding_size", (0, 0, 0, 0)))
        left, right, top, bottom = padding
        size = (self.size[0] - top - bottom, self.size[1] - left - right)
        flips = {"horizontal": (2,), "vertical": (1,), "diagonal": (1, 2)}
        axes = flips[meta["flip_direction"]] if meta.get("flip") else ()

        def moved(place: slice, axis: int) -> slice:
            before = (top, left)[axis]
            start, stop = place.start - before, place.stop - before
            if axis + 1 in axes:
                start, stop = size[axis] - stop, size[axis] - start
            return slice(start, stop)

        places = [
            (moved(rows, 0), moved(columns, 1), maps.flip(axes))
            for rows, columns, maps in self.windows
        ]
        return replace(self, size=size, windows=places)

    def whole(self) -> Tensor:
        """The values of all names, which are left apart, shape (Q, h, w)."""
        rows, columns = (slice(0, length) for length in self.size)
        return self._of_names(rows, columns, slice(None))

    def part(self, rows: slice, columns: slice, classes: Tensor) -> Tensor:
        """The values of some classes in a part of the image.

        Args:
            rows, columns: The part.
            classes: Indices (K',) in increasing order.

        Returns:
            Shape (K', rows, columns).
        """
        if self.classes is None:
            return self._of_names(rows, columns, classes)
        names = torch.isin(self.classes, classes).nonzero()[:, 0]
        values = self._of_names(rows, columns, names)
        if len(names) == len(classes):
            return values
        counts = torch.unique_consecutive(self.classes[names], return_counts=True)[1]
        return torch.stack([each.amax(0) for each in values.split(counts.tolist())])

    def bounds(self, rows: slice, columns: slice) -> tuple[Tensor, Tensor]:
        """The least and the most that the value of each class can be in a part, (K,) each."""
        ends = [
            torch.stack([maps.amin((1, 2)), maps.amax((1, 2))], 1)[:, None].float()
            for _, _, maps, _, _ in self._pieces(rows, columns)
        ]
        found = torch.stack([self.activate(each, slice(None)) for each in ends])  # (n, Q, 1, 2)
        least, most = found[:, :, 0, 0].amin(0), found[:, :, 0, 1].amax(0)
        if self.classes is None:
            return least, most
        none = least.new_full((int(self.classes[-1]) + 1,), -torch.inf)
        least, most = (none.scatter_reduce(0, self.classes, end, "amax") for end in (least, most))
        return least, most

    def _of_names(self, rows: slice, columns: slice, names: Any) -> Tensor:
        """The values of some names, indices or a slice, in a part; shape (Q', rows, columns)."""
        size = (rows.stop - rows.start, columns.stop - columns.start)
        total, covered = torch.empty(0), torch.zeros(size)
        for down, across, maps, row_weights, column_weights in self._pieces(rows, columns):
            values = self.activate(_resized(maps[names], row_weights, column_weights), names)
            if len(self.windows) == 1:
                return values
            if not len(total):
                total = values.new_zeros(len(values), *size)
            total[:, down, across] += values
            covered[down, across] += 1
        return total.div_(covered.to(total))

    def _pieces(self, rows: slice, columns: slice) -> Iterator[Piece]:
        """What each window adds to a part: where, from which of its maps' values, and weights."""
        for window_rows, window_columns, maps in self.windows:
            down, top, row_weights = self._overlap(rows, window_rows, maps.shape[1])
            across, left, column_weights = self._overlap(columns, window_columns, maps.shape[2])
            if down.start < down.stop and across.start < across.stop:
                yield down, across, maps[:, top, left], row_weights, column_weights

    def _overlap(self, part: slice, window: slice, old: int) -> tuple[slice, slice, Tensor | None]:
        """Where a window overlaps a part along an axis, from which of its values, and weights."""
        start, stop = max(part.start, window.start), min(part.stop, window.stop)
        within = slice(start - window.start, max(start, stop) - window.start)
        source, weights = _weights(old, window.stop - window.start, within)
        return slice(start - part.start, stop - part.start), source, weights


def argmax_at_size(
    maps: Sequence[Tensor | ImageMaps],
    size: tuple[int, int],
    none_below: float | None = None,
    none_label: int = -1,
) -> tuple[Tensor, Tensor]:
    """Resize class maps bilinearly and take the best class of each pixel.

    The maximum over the classes of ``interpolate(values, size)``, tile by tile, with only those
    classes resized that can win in a tile: every value there is a weighted mean of values that the
    windows keep for it, so a class whose largest one is below the smallest one of another class
    cannot. Only between classes that are equal except for rounding can it decide otherwise.

    Args:
        maps: Class maps of the image, shape (K, h, w) each, in any unit. Those of several views,
            which may differ in h and w, are added up at the size of the image.
        size: Rows and columns (H, W) of the image.
        none_below, none_label: Pixels whose best value is below the former get the latter.

    Returns:
        Class indices, shape (H, W), int64; and their values, shape (H, W), float32.

    Raises:
        UserError: If a value is not finite.

    Source:
        The idea is SED's (arXiv 2311.15537, category early rejection), which rejects by rank.
    """
    views = [view if isinstance(view, ImageMaps) else ImageMaps.of(view) for view in maps]
    kept = [values for view in views for _, _, values in view.windows]
    if not all(values.isfinite().all() for values in kept):
        raise UserError("the model's values are not finite: its weights may be damaged")
    labels = torch.empty(size, dtype=torch.int64, device=kept[0].device)
    best = torch.empty(size, dtype=torch.float32, device=kept[0].device)
    shrink = max(1.0, *(old / new for view in views for old, new in zip(view.size, size)))
    limit = MAX_VALUES * (1 if kept[0].device.type == "cpu" else GPU_FACTOR)
    side = max(MIN_TILE, int(math.sqrt(limit / len(kept[0])) / shrink))
    for rows in window_slices(size[0], side, side):
        for columns in window_slices(size[1], side, side):
            axes = [
                [_weights(*axis) for axis in zip(view.size, size, (rows, columns))]
                for view in views
            ]
            ends = [view.bounds(top, left) for view, ((top, _), (left, _)) in zip(views, axes)]
            least, most = (torch.stack(each).sum(0) for each in zip(*ends))
            possible = (most >= least.amax()).nonzero()[:, 0]
            resized = [
                _resized(view.part(top, left, possible), row_weights, column_weights)
                for view, ((top, row_weights), (left, column_weights)) in zip(views, axes)
            ]
            best[rows, columns], index = sum(resized[1:], resized[0]).max(0)
            labels[rows, columns] = possible[index]
    if none_below is not None:
        labels[best < none_below] = none_label
    return labels, best


def _weights(old: int, new: int, part: slice) -> tuple[slice, Tensor | None]:
    """How a part of ``new`` pixels along an axis depends on ``old`` ones, as in ``interpolate``.

    Returns:
        The old pixels, and their weights in each of the new ones, shape (new, old); None if the
        size stays.
    """
    if old == new or part.start == part.stop:
        return part, None
    pixels = torch.arange(part.start, part.stop, dtype=torch.float32)
    places = ((pixels + 0.5) * (old / new) - 0.5).clamp(0, old - 1)
    source = slice(int(places[0]), min(int(places[-1]) + 2, old))
    distance = places[:, None] - torch.arange(source.start, source.stop)
    return source, (1 - distance.abs()).clamp(min=0)


def _resized(values: Tensor, row_weights: Tensor | None, column_weights: Tensor | None) -> Tensor:
    """Maps (Q, h, w) as float32, resized by the weights of their axes."""
    values = values.float()
    with torch.autocast(values.device.type, enabled=False):
        if row_weights is not None:
            values = row_weights.to(values) @ values
        if column_weights is not None:
            values = values @ column_weights.to(values).T
    return values
