"""Predictions for large images: windows in batches, and labels without full-size class maps."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from mmseg_otseg.errors import UserError
from mmseg_otseg.imaging import windows
from mmseg_otseg.imaging.resizing import tiles

WINDOW_BATCH = 4


def slide_in_batches(
    predict: Callable[[Tensor, list[dict]], Tensor],
    images: Tensor,
    metas: list[dict],
    test_cfg: Mapping[str, Any],
) -> Tensor:
    """Predict window by window, and average the class maps where windows overlap.

    The windows and the result are those of mmseg's ``slide_inference``. But ``window_batch``
    windows go through the model at a time, and each map is added to its place in the image instead
    of being padded to the image's size.

    Args:
        predict: Maps crops (n, 3, h', w') and their meta information to class maps (n, K, h', w').
        images: Shape (B, 3, h, w).
        metas: Meta information of each image.
        test_cfg: ``crop_size`` and ``stride`` (rows, columns), in pixels; ``window_batch``: windows
            of an image in a forward pass, 4 if not given.

    Returns:
        Class maps of the images, shape (B, K, h, w).

    Raises:
        UserError: If ``window_batch`` is not a positive whole number.
    """
    at_once = test_cfg.get("window_batch", WINDOW_BATCH)
    if not isinstance(at_once, int) or at_once < 1:
        raise UserError(f"test_cfg.window_batch must be a whole number from 1 on, got {at_once!r}")
    size = images.shape[2:]
    rows, columns = map(windows, size, test_cfg["crop_size"], test_cfg["stride"])
    places = [(row, column) for row in rows for column in columns]
    total, covered = None, images.new_zeros(size)
    for start in range(0, len(places), at_once):
        batch = places[start : start + at_once]
        crops = torch.cat([images[:, :, row, column] for row, column in batch])
        crop_metas = [dict(meta, img_shape=crops.shape[2:]) for meta in metas] * len(batch)
        maps = predict(crops, crop_metas).split(len(images))
        if total is None:
            total = maps[0].new_zeros(*maps[0].shape[:2], *size)
        for (row, column), part in zip(batch, maps):
            total[:, :, row, column] += part
            covered[row, column] += 1
    assert total is not None
    return total.div_(covered)


def place_labels(
    values: Tensor,
    size: tuple[int, int],
    align_corners: bool = False,
    none_below: float | None = None,
) -> Tensor:
    """Resize class maps bilinearly and take the best class of each pixel.

    What :func:`mmseg_otseg.imaging.labels_at_size` computes, on any device: the labels of
    ``argmax(interpolate(values, size))``, tile by tile, with only those classes resized that can
    win in a tile. Only rounding can decide otherwise between classes that are equal but for it.

    Args:
        values: Class maps at the model's size, shape (K, h, w), in any unit.
        size: Rows and columns (H, W) of the image.
        align_corners: As in ``interpolate``.
        none_below: Pixels whose best value is below this get the label K.

    Returns:
        Class indices, shape (H, W), int64.
    """
    values = values.float()
    labels = torch.empty(size, dtype=torch.int64, device=values.device)
    bands, strips = (
        [(new, old, torch.from_numpy(weights).to(values)) for new, old, weights in tiles_of_axis]
        for tiles_of_axis in (tiles(*axis, align_corners) for axis in zip(values.shape[1:], size))
    )
    for rows, source_rows, row_weights in bands:
        for columns, source_columns, column_weights in strips:
            part = values[:, source_rows, source_columns]
            flat = part.flatten(1)
            possible = (flat.amax(1) >= flat.amin(1).amax()).nonzero()[:, 0]
            best, index = (row_weights @ part[possible] @ column_weights.T).max(0)
            found = possible[index]
            if none_below is not None:
                found = found.masked_fill(best < none_below, len(values))
            labels[rows, columns] = found
    return labels
