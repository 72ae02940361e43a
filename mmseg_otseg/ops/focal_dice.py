"""Focal and dice loss of class maps against a label map."""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor
from torchvision.ops import sigmoid_focal_loss


class FocalDiceSums(NamedTuple):
    """Sums that :func:`focal_dice_sums` leaves to be normalised.

    Attributes:
        focal: Focal loss, mean over pixels and sum over (image, class); scalar.
        dice: Dice loss, summed over the (image, class) pairs that occur; scalar.
        pairs: Number of (image, class) pairs that occur; scalar, no gradient.
    """

    focal: Tensor
    dice: Tensor
    pairs: Tensor


def focal_dice_sums(
    logits: Tensor,
    target: Tensor,
    alpha: float = 0.25,
    gamma: float = 2.0,
    ignored: str = "negative",
    align_corners: bool = False,
) -> FocalDiceSums:
    """Upsample class maps to the label map and sum their focal and dice losses.

    Focal: ``-alpha_t (1 - p_t)^gamma log p_t`` of ``p = sigmoid(logits)`` against one-hot targets. Dice:
    ``1 - (2 sum(p t) + 1) / (sum(p) + sum(t) + 1)`` over an image's pixels, for classes that occur in it.

    Args:
        logits: Class maps, shape (B, K, H, W), logits; upsampled bilinearly to (h, w).
        target: Class indices 0..K-1, shape (B, h, w), int64; anything else belongs to no class.
        alpha: Weight of the positive pixels; negatives weigh ``1 - alpha``.
        gamma: Exponent of the focal loss.
        ignored: ``"negative"``: a pixel of no class is a negative for all of them (as the authors of
            OTSeg train). ``"masked"``: such pixels are left out; the focal loss is then the mean over
            the pixels that count.
        align_corners: How to upsample, as in ``torch.nn.functional.interpolate``.

    Returns:
        The two sums and the number of (image, class) pairs.

    Raises:
        ValueError: If shapes do not fit or ``ignored`` is unknown.

    Source:
        ZegCLIP (arXiv 2212.03588), section 3.3; Lin et al., "Focal Loss" (ICCV 2017).
    """
    if logits.dim() != 4 or target.dim() != 3 or logits.shape[0] != target.shape[0]:
        raise ValueError(
            "expected logits (B, K, H, W) and target (B, h, w), got "
            f"{tuple(logits.shape)} and {tuple(target.shape)}"
        )
    if ignored not in ("negative", "masked"):
        raise ValueError(f"ignored must be 'negative' or 'masked', got {ignored!r}")
    with torch.autocast(logits.device.type, enabled=False):
        if logits.dtype in (torch.float16, torch.bfloat16):
            logits = logits.float()
        logits = F.interpolate(
            logits, target.shape[1:], mode="bilinear", align_corners=align_corners
        )
        classes = torch.arange(logits.shape[1], device=logits.device)[:, None, None]
        positive = target[:, None] == classes
        truth = positive.to(logits.dtype)
        focal = sigmoid_focal_loss(logits, truth, alpha, gamma)
        probability = logits.sigmoid()
        if ignored == "masked":
            counted = (positive.any(1, keepdim=True)).to(logits.dtype)
            pixels = counted.sum((2, 3)).clamp_min(1)
            focal_sum = ((focal * counted).sum((2, 3)) / pixels).sum()
            probability = probability * counted
        else:
            focal_sum = focal.mean((2, 3)).sum()
        overlap = (probability * truth).sum((2, 3))
        size = truth.sum((2, 3))
        dice = 1 - (2 * overlap + 1) / (probability.sum((2, 3)) + size + 1)
        present = size > 0
        return FocalDiceSums(focal_sum, (dice * present).sum(), present.sum().to(logits.dtype))
