"""Bilinear resizing in tiles, as ``torch.nn.functional.interpolate`` does it, and windows."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

TILE = 64  # pixels; small tiles have few classes that can win, and cheap products


def resize(values: np.ndarray, size: tuple[int, int], align_corners: bool = False) -> np.ndarray:
    """Resize an image or class maps bilinearly, without antialiasing.

    Args:
        values: Shape (h, w, C); results for uint8 values are rounded.
        size: The new rows and columns (H, W).
        align_corners: As in ``interpolate``.

    Returns:
        Shape (H, W, C), with the type of ``values``.
    """
    if values.shape[:2] == tuple(size):
        return values
    resized = np.empty((*size, values.shape[2]), values.dtype)
    bands, strips = (
        list(tiles(old, new, align_corners)) for old, new in zip(values.shape[:2], size)
    )
    for rows, source_rows, row_weights in bands:
        for columns, source_columns, column_weights in strips:
            source = values[source_rows, source_columns].astype(np.float32).transpose(2, 0, 1)
            tile = (row_weights @ source @ column_weights.T).transpose(1, 2, 0)
            resized[rows, columns] = tile.round() if values.dtype == np.uint8 else tile
    return resized


def tiles(old: int, new: int, align_corners: bool) -> Iterator[tuple[slice, slice, np.ndarray]]:
    """Ranges of new pixels along an axis, the old pixels they depend on, and the weights."""
    step = np.float32((old - 1) / max(new - 1, 1) if align_corners else old / new)
    pixels = np.arange(new, dtype=np.float32)
    places = pixels * step if align_corners else (pixels + np.float32(0.5)) * step - np.float32(0.5)
    places = places.clip(0, old - 1)
    lower = np.minimum(places.astype(np.int64), max(old - 2, 0))
    for start in range(0, new, TILE):
        place, low = places[start : start + TILE], lower[start : start + TILE]
        source = slice(low[0], min(low[-1] + 2, old))
        weights = np.zeros((len(place), source.stop - source.start), np.float32)
        row = np.arange(len(place))
        weights[row, low - low[0]] = 1 - (place - low)
        if old > 1:
            weights[row, low - low[0] + 1] = place - low
        yield slice(start, start + len(place)), source, weights


def window_slices(size: int, window: int, stride: int) -> list[slice]:
    """Where the windows lie along an axis, as in mmseg's ``slide`` mode.

    Args:
        size: Pixels of the axis.
        window: Pixels of a window; an axis that is shorter is one window.
        stride: Pixels from the start of a window to the start of the next one. The last window ends
            where the axis ends, so it can be closer to the one before.
    """
    count = max(size - window + stride - 1, 0) // stride + 1
    ends = [min(index * stride + window, size) for index in range(count)]
    return [slice(max(end - window, 0), end) for end in ends]
