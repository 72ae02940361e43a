"""The sparse part of the mask loss: every labelled pixel as a positive of its one class."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from .bilinear import BilinearAxis

PIXELS_AT_ONCE = 32768
PIXELS_AT_ONCE_ON_GPU = 2**23


class PositiveSums(NamedTuple):
    """Sums over the labelled pixels of an image, each at its own class, and their gradients.

    Attributes:
        focal: Focal loss as positives less focal loss as negatives, scalar.
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
    """Look every labelled pixel's own class up in the class maps and sum up what it is there.

    Args:
        logits: Class maps, shape (K, H, W), float32 or float64.
        target: Class indices, shape (h, w), int64; what is not in 0..K-1 is no class.
        rows: How the maps are resized from H to h.
        columns: How they are resized from W to w.
        alpha: Weight of positive pixels in the focal loss.
        gamma: Exponent of the focal loss.

    Returns:
        The sums and gradients.
    """
    classes, height, width = logits.shape
    flat = logits.flatten()
    focal = logits.new_zeros(())
    overlap, size = logits.new_zeros(2, classes)
    focal_gradient, overlap_gradient = logits.new_zeros(2, len(flat))
    pixels = PIXELS_AT_ONCE_ON_GPU if logits.is_cuda else PIXELS_AT_ONCE
    for part, _ in rows.bands(max(1, pixels // columns.new_size)):
        labels = target[part]
        labelled = (labels >= 0) & (labels < classes)
        owner = labels.where(labelled, 0)
        # The logits that a pixel is made of, (row taps, column taps, rows, w), and their weights.
        taps = rows.index[:, None, part, None] * width + columns.index[:, None]
        taps = (taps + owner * (height * width)).flatten()
        weight = rows.weight[:, None, part, None] * columns.weight[:, None]
        x = (flat.index_select(0, taps).view_as(weight) * weight).sum((0, 1))

        p, off, off_slope = _focal(x, gamma)
        q, on, on_slope = _focal(-x, gamma)
        weight *= labelled
        slope = torch.add(on_slope * alpha, off_slope, alpha=1 - alpha).neg_()
        focal_gradient.scatter_add_(0, taps, (slope * weight).flatten())
        overlap_gradient.scatter_add_(0, taps, (p * q * weight).flatten())
        counted = labelled.to(p.dtype)
        focal += (torch.sub(on * alpha, off, alpha=1 - alpha) * counted).sum()
        size.scatter_add_(0, owner.flatten(), counted.flatten())
        overlap.scatter_add_(0, owner.flatten(), (p * counted).flatten())
    return PositiveSums(
        focal, overlap, size, focal_gradient.view_as(logits), overlap_gradient.view_as(logits)
    )


def _focal(x: Tensor, gamma: float) -> tuple[Tensor, Tensor, Tensor]:
    """Logits of negatives to p, the focal loss ``p^gamma softplus(x)`` and its derivative."""
    p = x.sigmoid()
    softplus = x.clamp_min(0) - x.abs().sigmoid_().log_()
    power = p.pow(gamma)
    loss = power * softplus
    return p, loss, torch.addcmul(power * p, loss, 1 - p, value=gamma)
