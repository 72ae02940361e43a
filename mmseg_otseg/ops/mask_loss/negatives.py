"""The dense part of the mask loss: every pixel as a negative of every class, tile by tile."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from .bilinear import BilinearAxis

# Upsampled logits in flight. On a CPU, a thread's share of a tile with its fields (3 MB) stays in
# the shared cache, and is large enough that starting threads costs little; a GPU wants few large
# kernels.
TILE_PER_THREAD = 131072
TILE_ON_GPU = 2**23
# Pixels of a thin band depend on two or three rows of logits, which makes its products cheap.
ROWS_PER_BAND = 8


class NegativeSums(NamedTuple):
    """Sums over the upsampled pixels of an image, and their gradients.

    Attributes:
        focal: ``sum p^gamma softplus(x)`` of each class, shape (K,).
        probability: ``sum p`` of each class, shape (K,).
        focal_gradient: Gradient of ``focal`` with respect to the logits, shape (K, H, W).
        probability_gradient: The same for ``probability``.
    """

    focal: Tensor
    probability: Tensor
    focal_gradient: Tensor
    probability_gradient: Tensor


def negative_sums(
    logits: Tensor,
    rows: BilinearAxis,
    columns: BilinearAxis,
    gamma: float,
    counted: Tensor | None = None,
) -> NegativeSums:
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
        The sums and gradients.
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
    return NegativeSums(focal_sum, p_sum, rest.add_(focal, alpha=gamma), p.sub_(p_squared))


def _sum_bands(
    wide: Tensor, rows: BilinearAxis, band: int, gamma: float, counted: Tensor | None
) -> Tensor:
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
