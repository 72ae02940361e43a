"""The plain formulation of what the package computes fast: what the benchmarks compare with."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor


def plain_focal_dice(
    logits: Tensor,
    target: Tensor,
    alpha: float = 0.25,
    gamma: float = 2.0,
    ignored: str = "negative",
    align_corners: bool = False,
) -> tuple[Tensor, Tensor, Tensor]:
    """What :func:`mmseg_otseg.ops.focal_dice_sums` returns, as the formulas read.

    Class maps are upsampled, labels become one-hot maps, and each loss is computed on its own.
    """
    classes = logits.shape[1]
    logits = F.interpolate(logits, target.shape[1:], mode="bilinear", align_corners=align_corners)
    labelled = (target >= 0) & (target < classes)
    one_hot = F.one_hot(target.where(labelled, classes), classes + 1)[..., :classes]
    truth = one_hot.permute(0, 3, 1, 2).to(logits.dtype)
    counted = labelled[:, None].to(logits.dtype) if ignored == "masked" else None
    focal = _focal_loss(logits, truth, alpha, gamma, counted)
    return (focal, *_dice_loss(logits, truth, counted))


def _focal_loss(
    logits: Tensor, truth: Tensor, alpha: float, gamma: float, counted: Tensor | None
) -> Tensor:
    p = logits.sigmoid()
    entropy = F.binary_cross_entropy_with_logits(logits, truth, reduction="none")
    p_truth = p * truth + (1 - p) * (1 - truth)
    loss = entropy * (1 - p_truth) ** gamma * (alpha * truth + (1 - alpha) * (1 - truth))
    if counted is None:
        return loss.mean((2, 3)).sum()
    return ((loss * counted).sum((2, 3)) / counted.sum((2, 3)).clamp_min(1)).sum()


def _dice_loss(logits: Tensor, truth: Tensor, counted: Tensor | None) -> tuple[Tensor, Tensor]:
    p = logits.sigmoid()
    if counted is not None:
        p = p * counted
    p, truth = p.flatten(2), truth.flatten(2)
    size = truth.sum(-1)
    loss = 1 - (2 * (p * truth).sum(-1) + 1) / (p.sum(-1) + size + 1)
    present = (size > 0).to(loss.dtype)
    return (loss * present).sum(), present.sum()
