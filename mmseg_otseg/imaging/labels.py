"""Converts a model's class maps to a label for each image pixel."""

from __future__ import annotations

import numpy as np

from .resizing import tiles

NONE_NAME = "none of these"
NONE_COLOR = (200, 200, 200)


def labels_at_size(
    values: np.ndarray,
    size: tuple[int, int],
    none_below: float | None = None,
    align_corners: bool = False,
) -> np.ndarray:
    """Resize class maps bilinearly and take the best class of each pixel.

    The result is that of ``argmax(interpolate(values, size))``, but the resized maps are never
    stored. The image is processed in tiles, and in each tile only the classes that can win are
    resized. A class cannot win if its largest value is below the smallest value of another class,
    because bilinear interpolation computes weighted means.

    Args:
        values: Class maps at the model's output size, shape (K, h, w), finite, in any unit.
        size: Rows and columns (H, W) of the image.
        none_below: Pixels whose best value is below this get the label K.
        align_corners: As in ``interpolate``.

    Returns:
        Class indices, shape (H, W), uint8, or uint16 for more than 256 labels.
    """
    count = len(values) + (none_below is not None)
    labels = np.empty(size, np.uint8 if count <= 256 else np.uint16)
    bands, strips = (
        list(tiles(old, new, align_corners)) for old, new in zip(values.shape[1:], size)
    )
    for rows, source_rows, row_weights in bands:
        for columns, source_columns, column_weights in strips:
            labels[rows, columns] = _labels_of_tile(
                values[:, source_rows, source_columns], row_weights, column_weights, none_below
            )
    return labels


def _labels_of_tile(
    values: np.ndarray, rows: np.ndarray, columns: np.ndarray, none_below: float | None
) -> np.ndarray | int:
    """Labels of a tile with values (K, a, b); ``rows`` and ``columns`` are resizing weights."""
    flat = values.reshape(len(values), -1)
    smallest = flat.min(1)
    possible = np.flatnonzero(flat.max(1) >= smallest.max())
    first, *others = possible.tolist()
    if not others and (none_below is None or smallest[first] >= none_below):
        return first
    best = rows @ values[first] @ columns.T
    labels = np.full(best.shape, first, np.uint16)
    for label in others:
        resized = rows @ values[label] @ columns.T
        np.copyto(labels, label, where=resized > best)
        np.maximum(best, resized, out=best)
    if none_below is not None:
        labels[best < none_below] = len(values)
    return labels
