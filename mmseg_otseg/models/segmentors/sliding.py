"""Predictions for large images: windows in batches, and labels without full-size class maps."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from mmseg_otseg.errors import UserError
from mmseg_otseg.imaging import windows

WINDOW_BATCH = 4
MAX_WINDOW_VALUES = 2**26  # of all class maps of the windows in a batch: 256 MiB
MAX_VALUES = 2**23  # of resized class maps at a time


def slide_in_batches(
    predict: Callable[[Tensor, list[dict]], Tensor],
    images: Tensor,
    metas: list[dict],
    test_cfg: Mapping[str, Any],
    maps: int = 1,
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
            of an image in a forward pass, 4 if not given, and fewer where there are many maps.
        maps: Class maps K that ``predict`` returns.

    Returns:
        Class maps of the images, shape (B, K, h, w).

    Raises:
        UserError: If ``window_batch`` is not a positive whole number.
    """
    at_once = test_cfg.get("window_batch", WINDOW_BATCH)
    if not isinstance(at_once, int) or at_once < 1:
        raise UserError(f"test_cfg.window_batch must be a whole number from 1 on, got {at_once!r}")
    of_window = maps * test_cfg["crop_size"][0] * test_cfg["crop_size"][1]
    at_once = max(1, min(at_once, MAX_WINDOW_VALUES // of_window))
    size = images.shape[2:]
    rows, columns = map(windows, size, test_cfg["crop_size"], test_cfg["stride"])
    places = [(row, column) for row in rows for column in columns]
    total, covered = None, images.new_zeros(size)
    for start in range(0, len(places), at_once):
        batch = places[start : start + at_once]
        crops = torch.cat([images[:, :, row, column] for row, column in batch])
        crop_metas = [dict(meta, img_shape=crops.shape[2:]) for meta in metas] * len(batch)
        parts = predict(crops, crop_metas).split(len(images))
        if total is None:
            total = parts[0].new_zeros(*parts[0].shape[:2], *size)
        for (row, column), part in zip(batch, parts):
            total[:, :, row, column] += part
            covered[row, column] += 1
    assert total is not None
    return total.div_(covered)


def upright(values: Tensor, meta: Mapping[str, Any]) -> Tensor:
    """Undo the padding of the data preprocessor and the flip of the test pipeline.

    Args:
        values: Class maps of an image, shape (K, h, w).
        meta: Meta information of the image.

    Returns:
        Shape (K, h', w').
    """
    height, width = values.shape[1:]
    padding = meta.get("img_padding_size", meta.get("padding_size", (0, 0, 0, 0)))
    left, right, top, bottom = padding
    values = values[:, top : height - bottom, left : width - right]
    flips = {"horizontal": (2,), "vertical": (1,), "diagonal": (1, 2)}
    return values.flip(flips[meta["flip_direction"]]) if meta.get("flip") else values


def place_labels(
    maps: Sequence[Tensor],
    size: tuple[int, int],
    align_corners: bool = False,
    none_below: float | None = None,
    none_label: int | None = None,
) -> tuple[Tensor, Tensor]:
    """Resize class maps bilinearly and take the best class of each pixel.

    The maximum over the classes of ``interpolate(values, size)``, band by band, with only those
    classes resized that can win in a band: a class whose largest value is below the smallest value
    of another class cannot. Only rounding can decide otherwise between classes that are equal but
    for it.

    Args:
        maps: Class maps of the image, shape (K, h, w) each, in any unit. Those of several views,
            which may differ in h and w, are added up at the size of the image.
        size: Rows and columns (H, W) of the image.
        align_corners: As in ``interpolate``.
        none_below: Pixels whose best value is below this get the label ``none_label``.
        none_label: Default: K.

    Returns:
        Class indices, shape (H, W), int64; and their values, shape (H, W), float32.

    Raises:
        UserError: If a value is not finite.
    """
    maps = [values.float() for values in maps]
    if not all(values.isfinite().all() for values in maps):
        raise UserError("the model's values are not finite: its weights may be damaged")
    labels = torch.empty(size, dtype=torch.int64, device=maps[0].device)
    best = torch.empty(size, dtype=torch.float32, device=maps[0].device)
    height, width = size
    rows_at_once = max(1, MAX_VALUES // (len(maps[0]) * width))
    for start in range(0, height, rows_at_once):
        band = slice(start, min(start + rows_at_once, height))
        places = [_row_places(values.shape[1], height, band, align_corners) for values in maps]
        parts = [
            values[:, int(place[0]) : int(place[-1]) + 2] for values, place in zip(maps, places)
        ]
        lowest = torch.stack([part.amin((1, 2)) for part in parts]).sum(0).amax()
        highest = torch.stack([part.amax((1, 2)) for part in parts]).sum(0)
        possible = (highest >= lowest).nonzero()[:, 0]
        resized = [
            _resize(part[possible], place - int(place[0]), width, align_corners)
            for part, place in zip(parts, places)
        ]
        best[band], index = torch.stack(resized).sum(0).max(0)
        labels[band] = possible[index]
    if none_below is not None:
        labels[best < none_below] = len(maps[0]) if none_label is None else none_label
    return labels, best


def _row_places(old: int, new: int, band: slice, align_corners: bool) -> Tensor:
    """Where the rows of a band of ``new`` ones lie among ``old`` ones, as in ``interpolate``."""
    rows = torch.arange(band.start, band.stop, dtype=torch.float32)
    if align_corners:
        return rows * ((old - 1) / max(new - 1, 1))
    return ((rows + 0.5) * (old / new) - 0.5).clamp(0, old - 1)


def _resize(values: Tensor, places: Tensor, width: int, align_corners: bool) -> Tensor:
    """Class maps (K, h, w) at some ``places`` (n,) between their rows, resized to a width."""
    height = values.shape[1]
    size = (height, width)
    values = F.interpolate(values[None], size, mode="bilinear", align_corners=align_corners)[0]
    lower = places.long().to(values.device)
    upper = (lower + 1).clamp(max=height - 1)
    return torch.lerp(values[:, lower], values[:, upper], places.frac().to(values)[:, None])
