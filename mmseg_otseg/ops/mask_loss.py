"""Focal and dice loss of class maps against a label map.

The dense part of the loss counts every pixel as a negative of every class, tile by tile; the sparse
part, every labeled pixel as a positive of its one class.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

IGNORED_PIXELS = ("negative", "masked")
PIXELS_AT_ONCE = 2**16  # of the sparse part; on a GPU, few large kernels are better
PIXELS_AT_ONCE_ON_GPU = 2**22
# Upsampled logits in flight. On a CPU, a thread's share of a tile with its fields (3 MB) stays in
# the shared cache, and is large enough that starting threads costs little; a GPU wants few large
# kernels.
TILE_PER_THREAD = 131072
TILE_ON_GPU = 2**23
# Pixels of a thin band depend on two or three rows of logits, which makes its products cheap.
ROWS_PER_BAND = 8


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
    if ignored not in IGNORED_PIXELS:
        raise ValueError(f"ignored must be one of {', '.join(IGNORED_PIXELS)}, got {ignored!r}")
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
        _axis(*lengths, logits.dtype, logits.device)
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
    rows: _Axis,
    columns: _Axis,
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
    negative, off_gradient, probability, probability_gradient = _negative_sums(
        logits, rows, columns, gamma, counted
    )
    positive, size, overlap, on_gradient, overlap_gradient = _positive_sums(
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


def _negative_sums(
    logits: Tensor,
    rows: _Axis,
    columns: _Axis,
    gamma: float,
    counted: Tensor | None = None,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Upsample class maps and sum their loss terms as if no class were present anywhere.

    Resizing is a matrix product along each axis, and so is its adjoint. The adjoint brings four
    fields of every tile back to the logits' resolution: p, p^2, the focal loss, and the rest of the
    focal loss's gradient. All gradients are linear combinations of these fields. All sums are sums
    over them, too, because the weights of each upsampled pixel add up to 1.

    Args:
        logits: Class maps, shape (K, H, W), float32 or float64.
        rows: How the maps are resized from H to h.
        columns: How they are resized from W to w.
        gamma: Exponent of the focal loss.
        counted: 1 for the pixels to sum over and 0 for the others, shape (h, w); None is all.

    Returns:
        The focal loss ``sum p^gamma softplus(x)`` of each class, (K,), and its gradient with
        respect to the logits, (K, H, W); ``sum p`` of each class, (K,), and its gradient.
    """
    classes, height, width = logits.shape
    tile = TILE_ON_GPU if logits.is_cuda else TILE_PER_THREAD * torch.get_num_threads()
    chunk = max(1, min(classes, tile // (ROWS_PER_BAND * columns.new_size)))
    band = max(1, tile // (chunk * columns.new_size))
    fields = logits.new_empty(4, classes, height, width)
    for start in range(0, classes, chunk):
        part = slice(start, start + chunk)
        wide = columns.resize(logits[part].transpose(0, 1)).flatten(1)  # (H, chunk * w)
        total = _sum_bands(wide, rows, band, gamma, counted)
        total = total.view(height, 4, -1, columns.new_size)
        fields[:, part] = columns.resize_back(total).permute(1, 2, 0, 3)
    p, p_squared, focal, rest = fields
    focal_sum, p_sum = focal.sum((1, 2)), p.sum((1, 2))
    return focal_sum, rest.add_(focal, alpha=gamma), p_sum, p.sub_(p_squared)


def _sum_bands(
    wide: Tensor, rows: _Axis, band: int, gamma: float, counted: Tensor | None
) -> Tensor:
    """The four fields (H, 4 * n) of logits (H, n) whose columns are resized already."""
    size = wide.shape[1]
    total = wide.new_zeros(wide.shape[0], 4 * size)
    tile, buffer = wide.new_empty(band, 4, size), wide.new_empty(2, band, size)
    for outputs, inputs in rows.bands(band):
        weights = rows.matrix[outputs, inputs]
        fields, x, scratch = tile[: len(weights)], *buffer[:, : len(weights)]
        torch.mm(weights, wide[inputs], out=x)
        p, p_squared, focal, rest = fields.unbind(1)
        torch.sigmoid(x, out=p)
        # softplus(x) = max(x, 0) - log(max(p, 1 - p)) never overflows.
        torch.maximum(p, torch.sub(1, p, out=scratch), out=scratch).log_()
        softplus = x.clamp_min_(0).sub_(scratch)
        if counted is not None:
            for field in (p, softplus):
                field.unflatten(1, (-1, counted.shape[1])).mul_(counted[outputs][:, None])
        torch.mul(p, p, out=p_squared)
        power = p_squared if gamma == 2 else torch.pow(p, gamma, out=scratch)
        torch.mul(power, softplus, out=focal)
        torch.sub(power, focal, alpha=gamma, out=rest).mul_(p)
        total[inputs].addmm_(weights.T, fields.flatten(1))
    return total


def _positive_sums(
    logits: Tensor, target: Tensor, rows: _Axis, columns: _Axis, alpha: float, gamma: float
) -> tuple[Tensor, ...]:
    """Sum the loss terms of every labeled pixel at its own class, upsampling nothing else.

    Args:
        logits: Class maps, shape (K, H, W), float32 or float64.
        target: Class indices, shape (h, w), int64; what is not in 0..K-1 is not a class.
        rows: How the maps are resized from H to h.
        columns: How they are resized from W to w.
        alpha: Weight of positive pixels in the focal loss.
        gamma: Exponent of the focal loss.

    Returns:
        The focal loss of these pixels as positives, minus that as negatives, which
        :func:`_negative_sums` counted, scalar; the number of pixels and ``sum p`` of each class,
        (K,); and the gradients of the focal loss and of ``sum p``, (K, H, W).
    """
    classes, height, width = logits.shape
    values, focal = logits.flatten(), logits.new_zeros(())
    sums, gradients = logits.new_zeros(2, classes), logits.new_zeros(2, len(values))
    pixels = PIXELS_AT_ONCE_ON_GPU if logits.is_cuda else PIXELS_AT_ONCE
    length = max(1, pixels // columns.new_size)
    for start in range(0, rows.new_size, length):
        part = slice(start, start + length)
        labels = target[part]
        labeled = (labels >= 0) & (labels < classes)
        owner, counted = labels.where(labeled, 0), labeled.to(logits.dtype)
        # The logits that each pixel is made of, up to four, and their weights, (taps, rows, w).
        taps = owner * (height * width) + rows.index[:, part, None] * width
        taps = (taps[:, None] + columns.index[:, None]).flatten(0, 1)
        weights = (rows.weight[:, None, part, None] * columns.weight[:, None]).flatten(0, 1)
        x = (values.index_select(0, taps.flatten()).view_as(taps) * weights).sum(0)

        # The focal loss as a negative, p^gamma softplus(x), and as a positive, of -x.
        p, q = x.sigmoid(), x.neg().sigmoid_()
        log = torch.maximum(p, q).log_()
        off_power, on_power = p.pow(gamma), q.pow(gamma)
        off, on = (x.clamp_min(0) - log) * off_power, (x.neg().clamp_min_(0) - log) * on_power
        off_slope = (off_power * p).addcmul_(off, q, value=gamma)
        on_slope = (on_power * q).addcmul_(on, p, value=gamma)
        slope = on_slope.mul_(-alpha).sub_(off_slope, alpha=1 - alpha)
        fields = torch.stack([slope, p * q]) * counted
        for tap, weight in zip(taps, weights):
            gradients.scatter_add_(1, tap.flatten().expand(2, -1), (fields * weight).flatten(1))
        focal += (torch.sub(on * alpha, off, alpha=1 - alpha) * counted).sum()
        areas = torch.stack([counted, p * counted]).flatten(1)
        sums.scatter_add_(1, owner.flatten().expand(2, -1), areas)
    return focal, *sums, *gradients.view(2, *logits.shape)


class _Axis:
    """How ``torch.nn.functional.interpolate`` resizes one axis bilinearly.

    Args:
        size: Length of the axis before.
        new_size: Length after.
        dtype: The type to compute with.
        device: Where to compute.

    Attributes:
        matrix: Weights, shape (new_size, size).
        index: Inputs that each output is made of, shape (taps, new_size), int64; taps is 1 or 2.
        weight: Their weights, same shape.
    """

    def __init__(self, size: int, new_size: int, dtype: torch.dtype, device: torch.device) -> None:
        self.size, self.new_size = size, new_size
        unit = torch.eye(size, dtype=dtype, device="cpu")[None]
        matrix = F.interpolate(unit, new_size, mode="linear", align_corners=False)[0].T
        used = (matrix != 0).int()
        self._first = used.argmax(1).tolist()
        self._end = (size - used.flip(1).argmax(1)).tolist()
        weight, index = matrix.topk(min(2, size), dim=1)
        self.matrix = matrix.contiguous().to(device)
        self.index, self.weight = index.T.contiguous().to(device), weight.T.contiguous().to(device)

    def resize(self, x: Tensor) -> Tensor:
        """Resize the last axis: (..., size) to (..., new_size)."""
        return x if self.size == self.new_size else F.linear(x, self.matrix)

    def resize_back(self, x: Tensor) -> Tensor:
        """The adjoint of :meth:`resize`, for gradients: (..., new_size) to (..., size)."""
        return x if self.size == self.new_size else x @ self.matrix

    def bands(self, length: int) -> Iterator[tuple[slice, slice]]:
        """Outputs in bands of at most ``length``, each with the range of inputs it is made of."""
        for start in range(0, self.new_size, length):
            stop = min(start + length, self.new_size)
            yield slice(start, stop), slice(self._first[start], self._end[stop - 1])


@lru_cache(maxsize=32)  # the tables are made on the host
def _axis(size: int, new_size: int, dtype: torch.dtype, device: torch.device) -> _Axis:
    """An :class:`_Axis`, made once."""
    with torch.inference_mode(False):  # or training could not use tables made in testing
        return _Axis(size, new_size, dtype, device)
