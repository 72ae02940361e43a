"""The sums of the mask loss over upsampled class maps, and their gradients.

The dense part counts every pixel as a negative of every class, tile by tile; the sparse part, every
labeled pixel as a positive of its one class.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache

import torch
import torch.nn.functional as F
from torch import Tensor

PIXELS_AT_ONCE = 65536
PIXELS_AT_ONCE_ON_GPU = 2**23
FEW_CLASSES = 256
# Upsampled logits in flight. On a CPU, a thread's share of a tile with its fields (3 MB) stays in
# the shared cache, and is large enough that starting threads costs little; a GPU wants few large
# kernels.
TILE_PER_THREAD = 131072
TILE_ON_GPU = 2**23
# Pixels of a thin band depend on two or three rows of logits, which makes its products cheap.
ROWS_PER_BAND = 8


class Axis:
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
        index = index.where(weight != 0, index[:, :1])  # inside the range that `bands` gives
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
def axis(size: int, new_size: int, dtype: torch.dtype, device: torch.device) -> Axis:
    """An :class:`Axis`, made once."""
    with torch.inference_mode(False):  # or training could not use tables made in testing
        return Axis(size, new_size, dtype, device)


def negative_sums(
    logits: Tensor,
    rows: Axis,
    columns: Axis,
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


def _sum_bands(wide: Tensor, rows: Axis, band: int, gamma: float, counted: Tensor | None) -> Tensor:
    """The four fields (H, 4 * n) of logits (H, n) whose columns are resized already."""
    size = wide.shape[1]
    total = wide.new_zeros(wide.shape[0], 4 * size)
    tile, buffer = wide.new_empty(band, 4, size), wide.new_empty(2, band, size)
    for outputs, inputs in rows.bands(band):
        weights = rows.matrix[outputs, inputs]
        fields, x, scratch = tile[: len(weights)], *buffer[:, : len(weights)]
        torch.mm(weights, wide[inputs], out=x)
        _fill_fields(fields, x, scratch, gamma, None if counted is None else counted[outputs])
        total[inputs].addmm_(weights.T, fields.flatten(1))
    return total


def _fill_fields(
    fields: Tensor, x: Tensor, scratch: Tensor, gamma: float, counted: Tensor | None
) -> None:
    """Write the fields (rows, 4, n) of logits x (rows, n); x and ``scratch`` are used up."""
    p, p_squared, focal, rest = fields.unbind(1)
    torch.sigmoid(x, out=p)
    # softplus(x) = max(x, 0) - log(sigmoid(|x|)) never overflows, and uses only fast operations.
    torch.abs(x, out=scratch).sigmoid_().log_()
    softplus = x.clamp_min_(0).sub_(scratch)
    if counted is not None:
        for field in (p, softplus):
            field.unflatten(1, (-1, counted.shape[1])).mul_(counted[:, None])
    torch.mul(p, p, out=p_squared)
    power = p_squared if gamma == 2 else torch.pow(p, gamma, out=scratch)
    torch.mul(power, softplus, out=focal)
    torch.sub(power, focal, alpha=gamma, out=rest).mul_(p)


def positive_sums(
    logits: Tensor,
    target: Tensor,
    rows: Axis,
    columns: Axis,
    alpha: float,
    gamma: float,
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
        :func:`negative_sums` counted, scalar; the number of pixels and ``sum p`` of each class,
        (K,); and the gradients of the focal loss and of ``sum p``, (K, H, W).
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
    return focal, *spread


def _sums(
    logits: Tensor,
    target: Tensor,
    rows: Axis,
    columns: Axis,
    alpha: float,
    gamma: float,
) -> tuple[Tensor, ...]:
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
    return focal, size, overlap, *gradients


def _focal(x: Tensor, gamma: float) -> tuple[Tensor, Tensor, Tensor]:
    """p = sigmoid(x), the focal loss of a negative, ``p^gamma softplus(x)``, and its derivative."""
    p = x.sigmoid()
    softplus = x.clamp_min(0) - x.abs().sigmoid_().log_()
    power = p.pow(gamma)
    loss = power * softplus
    return p, loss, torch.addcmul(power * p, loss, 1 - p, value=gamma)
