"""Sliding windows in batches."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from mmseg_otseg.errors import UserError

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
    rows, columns = map(_windows, size, test_cfg["crop_size"], test_cfg["stride"])
    windows = [(row, column) for row in rows for column in columns]
    total, covered = None, images.new_zeros(size)
    for start in range(0, len(windows), at_once):
        batch = windows[start : start + at_once]
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


def _windows(size: int, crop: int, stride: int) -> list[slice]:
    """Windows of length ``crop`` along an axis; the last one ends where the axis ends."""
    count = max(size - crop + stride - 1, 0) // stride + 1
    ends = [min(index * stride + crop, size) for index in range(count)]
    return [slice(max(end - crop, 0), end) for end in ends]
