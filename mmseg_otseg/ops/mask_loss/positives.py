"""The sparse part of the mask loss: every labeled pixel as a positive of its one class."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from .bilinear import BilinearAxis

PIXELS_AT_ONCE = 65536
PIXELS_AT_ONCE_ON_GPU = 2**23
FEW_CLASSES = 256


class PositiveSums(NamedTuple):
    """Sums over the labeled pixels of an image, each at its own class, and their gradients.

    Attributes:
        focal: Focal loss of these pixels as positives, minus their focal loss as negatives (which
            :func:`.negatives.negative_sums` counted), scalar.
        overlap: ``sum p`` of each class, shape (K,).
        size: Number of pixels of each class, shape (K,).
        focal_gradient: Gradient of ``focal`` with respect to the logits, shape (K, H, W).
        overlap_gradient: The same for ``overlap``.
    """

    focal: Tensor
    overlap: Tensor
    size: Tensor
    focal_gradient: Tensor
    overlap_gradient: Tensor


def positive_sums(
    logits: Tensor,
    target: Tensor,
    rows: BilinearAxis,
    columns: BilinearAxis,
    alpha: float,
    gamma: float,
) -> PositiveSums:
    """Sum the loss terms of every labeled pixel at its own class, upsampling nothing else.

    Args:
        logits: Class maps, shape (K, H, W), float32 or float64.
        target: Class indices, shape (h, w), int64; what is not in 0..K-1 is not a class.
        rows: How the maps are resized from H to h.
        columns: How they are resized from W to w.
        alpha: Weight of positive pixels in the focal loss.
        gamma: Exponent of the focal loss.

    Returns:
        The sums and gradients.
    """
    if len(logits) <= FEW_CLASSES:
        return _sums(logits, target, rows, columns, alpha, gamma)
    # Of many classes, few occur in an image.
    labeled = (target >= 0) & (target < len(logits))
    index = torch.bincount(target[labeled], minlength=len(logits)).nonzero()[:, 0]
    index = index if len(index) else index.new_zeros(1)
    place = target.new_zeros(len(logits)).index_copy(0, index, torch.arange(len(index)).to(index))
    owner = place[target.where(labeled, 0)].where(labeled, -1)
    focal, *sums = _sums(logits[index], owner, rows, columns, alpha, gamma)
    spread = [
        part.new_zeros(len(logits), *part.shape[1:]).index_copy_(0, index, part) for part in sums
    ]
    return PositiveSums(focal, *spread)


def _sums(
    logits: Tensor,
    target: Tensor,
    rows: BilinearAxis,
    columns: BilinearAxis,
    alpha: float,
    gamma: float,
) -> PositiveSums:
    """The sums over all classes that there are logits of."""
    classes = len(logits)
    focal = logits.new_zeros(())
    overlap, size = logits.new_zeros(2, classes)
    gradients = logits.new_zeros(2, *logits.shape)
    pixels = PIXELS_AT_ONCE_ON_GPU if logits.is_cuda else PIXELS_AT_ONCE
    column = torch.arange(columns.new_size, device=logits.device)
    # Most memory goes to the rows of logits that a band is made of.
    wide_rows = max(1, 8 * pixels // (classes * columns.new_size) - 2)
    length = min(pixels // columns.new_size, wide_rows * rows.new_size // rows.size)
    for part, inputs in rows.bands(max(1, length)):
        labels = target[part]
        labeled = (labels >= 0) & (labels < classes)
        owner = labels.where(labeled, 0)
        counted = labeled.to(logits.dtype)
        wide = columns.resize(logits[:, inputs])  # (K, rows of logits, w)
        # The entries of `wide` that a pixel is made of, (taps, rows, w), and their weights.
        taps = (rows.index[:, part, None] - inputs.start) * columns.new_size + column
        taps = (taps + owner * wide[0].numel()).flatten(1)
        weight = rows.weight[:, part]
        x = wide.flatten().index_select(0, taps.flatten()).view(len(taps), *labels.shape)
        x = (x * weight[:, :, None]).sum(0)

        p, off, off_slope = _focal(x, gamma)
        q, on, on_slope = _focal(-x, gamma)
        slope = torch.add(on_slope * alpha, off_slope, alpha=1 - alpha).neg_()
        fields = torch.stack([slope, p * q]) * counted
        gradient = wide.new_zeros(2, wide.numel())
        for tap, share in zip(taps, weight):
            gradient.scatter_add_(1, tap.expand(2, -1), (fields * share[:, None]).flatten(1))
        gradients[:, :, inputs] += columns.resize_back(gradient.view(2, *wide.shape))
        focal += (torch.sub(on * alpha, off, alpha=1 - alpha) * counted).sum()
        sums = torch.stack([p * counted, counted]).flatten(1)
        sums = wide.new_zeros(2, classes).scatter_add_(1, owner.flatten().expand(2, -1), sums)
        overlap += sums[0]
        size += sums[1]
    return PositiveSums(focal, overlap, size, *gradients)


def _focal(x: Tensor, gamma: float) -> tuple[Tensor, Tensor, Tensor]:
    """p = sigmoid(x), the focal loss of a negative, ``p^gamma softplus(x)``, and its derivative."""
    p = x.sigmoid()
    softplus = x.clamp_min(0) - x.abs().sigmoid_().log_()
    power = p.pow(gamma)
    loss = power * softplus
    return p, loss, torch.addcmul(power * p, loss, 1 - p, value=gamma)
