"""Focal and dice loss of class maps against a label map."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from mmseg_otseg.errors import check_option

from .mask_sums import Axis, axis, negative_sums, positive_sums


class FocalDiceSums(NamedTuple):
    """Sums that :func:`focal_dice_sums` leaves to be normalized.

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
) -> FocalDiceSums:
    """Upsample class maps to the label map and sum their focal and dice losses.

    Focal: ``-alpha_t (1 - p_t)^gamma log p_t`` of ``p = sigmoid(logits)`` against one-hot targets.
    Dice: ``1 - (2 sum(p t) + 1) / (sum(p) + sum(t) + 1)`` over the pixels of an image, for the
    classes that occur in it.

    Nothing of size (K, h, w) is ever stored. The forward pass upsamples one tile at a time, treats
    every pixel in it as a negative of every class, and brings the gradients back to (H, W). A pass
    over the labels then corrects the one class that each pixel belongs to. All that is left for the
    backward pass is a weighted sum of two maps of the logits' size.

    Args:
        logits: Class maps, shape (B, K, H, W), logits; upsampled bilinearly to (h, w).
        target: Class indices 0..K-1, shape (B, h, w), int64; anything else belongs to no class.
        alpha: Weight of the positive pixels, from 0 to 1; negatives weigh ``1 - alpha``.
        gamma: Exponent of the focal loss, not negative.
        ignored: ``"negative"``: a pixel of no class is a negative for all of them (as the authors
            of OTSeg train). ``"masked"``: such pixels are left out; the focal loss is then the mean
            over the pixels that count.

    Returns:
        The two sums and the number of (image, class) pairs.

    Raises:
        ValueError: If the shapes do not fit, ``alpha`` or ``gamma`` is out of range, or ``ignored``
            is unknown.

    Source:
        ZegCLIP (arXiv 2212.03588), section 3.3; Lin et al., "Focal Loss" (ICCV 2017).
    """
    if logits.dim() != 4 or target.dim() != 3 or logits.shape[0] != target.shape[0]:
        raise ValueError(
            "expected logits (B, K, H, W) and target (B, h, w), got "
            f"{tuple(logits.shape)} and {tuple(target.shape)}"
        )
    if not 0 <= alpha <= 1 or gamma < 0:
        raise ValueError(
            f"alpha must be from 0 to 1 and gamma not negative, got {alpha} and {gamma}"
        )
    check_option("ignored", ignored, ("negative", "masked"))
    with torch.autocast(logits.device.type, enabled=False):
        if logits.dtype in (torch.float16, torch.bfloat16):
            logits = logits.float()
        run = focal_dice_operation if torch.compiler.is_compiling() else _FocalDice.apply
        sums, _ = run(logits, target, alpha, gamma, ignored == "masked")
        focal, dice, pairs = sums.unbind()
    return FocalDiceSums(focal, dice, pairs.detach())


def _sums_and_gradients(
    logits: Tensor, target: Tensor, alpha: float, gamma: float, masked: bool
) -> tuple[Tensor, Tensor]:
    """Focal loss, dice loss and number of pairs, (3,), and gradients of the two, (2, B, K, H, W).

    The gradients come from the same pass, at the resolution of the logits.
    """
    rows, columns = (
        axis(*lengths, logits.dtype, logits.device)
        for lengths in zip(logits.shape[2:], target.shape[1:])
    )
    gradients = logits.new_empty(2, *logits.shape)
    sums = logits.new_zeros(3)
    for image, labels, gradient in zip(logits, target, gradients.unbind(1)):
        sums += _image_sums(image, labels, rows, columns, alpha, gamma, masked, gradient)
    return sums, gradients


def _keep_gradients(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    _, gradients = output
    ctx.save_for_backward(gradients)
    ctx.mark_non_differentiable(gradients)


def _backward(ctx: Any, grad_sums: Tensor, _: Any) -> tuple[Tensor | None, ...]:
    focal_gradient, dice_gradient = ctx.saved_tensors[0]
    grad_focal, grad_dice, _ = grad_sums.unbind()
    gradient = (focal_gradient * grad_focal).addcmul_(dice_gradient, grad_dice)
    return gradient, *([None] * 4)


class _FocalDice(torch.autograd.Function):
    """For eager steps: autograd and tracers see every operation inside."""

    forward = staticmethod(_sums_and_gradients)
    setup_context = staticmethod(_keep_gradients)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        return _backward(ctx, *gradients)


# For compiled graphs, in which the loss is one operation.
focal_dice_operation = torch.library.custom_op(
    "mmseg_otseg::focal_dice", _sums_and_gradients, mutates_args=()
)
focal_dice_operation.register_autograd(_backward, setup_context=_keep_gradients)


@focal_dice_operation.register_fake
def _(logits: Tensor, *_: Any) -> tuple[Tensor, Tensor]:
    return logits.new_empty(3), logits.new_empty(2, *logits.shape)


def _image_sums(
    logits: Tensor,
    target: Tensor,
    rows: Axis,
    columns: Axis,
    alpha: float,
    gamma: float,
    masked: bool,
    gradients: Tensor,
) -> Tensor:
    """Focal loss, dice loss and number of classes of one image, shape (3,).

    Takes logits (K, H, W) and target (h, w); writes the gradients of both losses into ``gradients``
    (2, K, H, W).
    """
    counted = ((target >= 0) & (target < len(logits))).to(logits.dtype) if masked else None
    pixels = target.numel() if counted is None else counted.sum().clamp_min(1)
    # What the losses are made of, each with its gradient.
    negative, off_gradient, probability, probability_gradient = negative_sums(
        logits, rows, columns, gamma, counted
    )
    positive, size, overlap, on_gradient, overlap_gradient = positive_sums(
        logits, target, rows, columns, alpha, gamma
    )
    focal = ((1 - alpha) * negative.sum() + positive) / pixels
    torch.div(on_gradient.add_(off_gradient, alpha=1 - alpha), pixels, out=gradients[0])

    union = probability + size + 1
    ratio = (2 * overlap + 1) / union
    present = (size > 0).to(logits.dtype)
    by_probability, by_overlap = ratio / union * present, -2 / union * present
    torch.mul(probability_gradient, by_probability[:, None, None], out=gradients[1])
    gradients[1].addcmul_(overlap_gradient, by_overlap[:, None, None])
    return torch.stack([focal, ((1 - ratio) * present).sum(), present.sum()])
