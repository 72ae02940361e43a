"""The mask loss and its gradients as Triton kernels: two launches and one sum.

They compute what :mod:`~mmseg_otseg.ops.mask_loss.focal_dice` computes. No two programs write to
one place, so the same input always gives the same output.
They compile for GPUs and were checked in Triton's interpreter, but they were never run on a GPU.
"""

# mypy: disable-error-code="no-untyped-def"

from __future__ import annotations

import triton
import triton.language as tl
from torch import Tensor

from .bilinear import BilinearAxis

BLOCK_VALUES = 4096  # of the weights that bring a block of pixels back to a row of logits
SUMS = 5  # focal loss, probability, overlap, pixels of the class, pixels that count


@triton.jit
def rows_kernel(
    logits,  # (B, K, H, W)
    target,  # (B, h, w)
    row_index,  # (taps, h)
    row_weight,  # (taps, h)
    row_outputs,  # (2, H), the first row of pixels that a row of logits reaches, and the end
    column_index,  # (taps, w)
    column_weight,  # (taps, w)
    column_matrix,  # (w, W)
    gradients,  # (3, B, K, H, W), written: of focal loss, probability and overlap
    sums,  # (B, K, H, 5), written: this row's share in the sums over all pixels
    width,
    new_height,
    new_width,
    alpha,
    gamma,
    ROW_TAPS: tl.constexpr,
    COLUMN_TAPS: tl.constexpr,
    MASKED: tl.constexpr,
    WIDTH: tl.constexpr,  # the next power of two
    BLOCK: tl.constexpr,  # pixels at a time
):
    """One row of logits of one class of one image, and all pixels that it reaches."""
    row, owner, image = tl.program_id(0), tl.program_id(1), tl.program_id(2).to(tl.int64)
    height, classes, images = tl.num_programs(0), tl.num_programs(1), tl.num_programs(2)
    class_map = image * classes + owner
    logits += class_map * height * width
    target += image * new_height * new_width
    first, end = tl.load(row_outputs + row), tl.load(row_outputs + height + row)
    column = tl.arange(0, WIDTH)

    focal_gradient = tl.zeros([WIDTH], dtype=tl.float32)
    probability_gradient = tl.zeros([WIDTH], dtype=tl.float32)
    overlap_gradient = tl.zeros([WIDTH], dtype=tl.float32)
    # The weights of the rows that a pixel is made of add up to 1: each row takes its share.
    focal_sum, probability_sum, overlap_sum, size_sum, counted_sum = 0.0, 0.0, 0.0, 0.0, 0.0
    for start in range(0, new_width, BLOCK):
        pixel = start + tl.arange(0, BLOCK)
        inside = pixel < new_width
        focal_field = tl.zeros([BLOCK], dtype=tl.float32)
        probability_field = tl.zeros([BLOCK], dtype=tl.float32)
        overlap_field = tl.zeros([BLOCK], dtype=tl.float32)
        for new_row in range(first, end):
            x = tl.zeros([BLOCK], dtype=tl.float32)
            share = 0.0
            for row_tap in tl.static_range(ROW_TAPS):
                source = tl.load(row_index + row_tap * new_height + new_row)
                weight = tl.load(row_weight + row_tap * new_height + new_row)
                share += tl.where(source == row, weight, 0.0)
                for column_tap in tl.static_range(COLUMN_TAPS):
                    tap = column_tap * new_width + pixel
                    place = source * width + tl.load(column_index + tap, mask=inside, other=0)
                    column_share = tl.load(column_weight + tap, mask=inside, other=0.0)
                    x += weight * column_share * tl.load(logits + place, mask=inside, other=0.0)
            label = tl.load(target + new_row * new_width + pixel, mask=inside, other=-1)
            positive = label == owner
            counts = inside
            if MASKED:
                counts = inside & (label >= 0) & (label < classes)
            counted = tl.where(counts, share, 0.0)
            own = tl.where(positive & inside, share, 0.0)

            small = tl.exp(-tl.abs(x))
            log = tl.log(1.0 + small)
            off = tl.maximum(x, 0.0) + log  # -log(1 - p)
            on = tl.maximum(-x, 0.0) + log  # -log(p)
            p = tl.where(x >= 0, 1.0, small) / (1.0 + small)
            q = tl.where(x >= 0, small, 1.0) / (1.0 + small)
            off_power = (1.0 - alpha) * tl.exp(-gamma * on)  # p^gamma
            on_power = alpha * tl.exp(-gamma * off)
            focal = tl.where(positive, on_power * on, off_power * off)
            slope = tl.where(
                positive, -on_power * (gamma * p * on + q), off_power * (gamma * q * off + p)
            )

            focal_field += counted * slope
            probability_field += counted * p * q
            overlap_field += own * p * q
            focal_sum += tl.sum(counted * focal)
            probability_sum += tl.sum(counted * p)
            overlap_sum += tl.sum(own * p)
            size_sum += tl.sum(own)
            counted_sum += tl.sum(counted)
        place = pixel[:, None] * width + column[None, :]
        both = inside[:, None] & (column < width)[None, :]
        weights = tl.load(column_matrix + place, mask=both, other=0.0)
        focal_gradient += tl.sum(weights * focal_field[:, None], 0)
        probability_gradient += tl.sum(weights * probability_field[:, None], 0)
        overlap_gradient += tl.sum(weights * overlap_field[:, None], 0)

    size = images * classes * height * width
    place = (class_map * height + row) * width + column
    tl.store(gradients + place, focal_gradient, mask=column < width)
    tl.store(gradients + size + place, probability_gradient, mask=column < width)
    tl.store(gradients + 2 * size + place, overlap_gradient, mask=column < width)
    sums += (class_map * height + row) * 5
    tl.store(sums, focal_sum)
    tl.store(sums + 1, probability_sum)
    tl.store(sums + 2, overlap_sum)
    tl.store(sums + 3, size_sum)
    tl.store(sums + 4, counted_sum)


@triton.jit
def losses_kernel(
    parts,  # (3, B, K, H, W), gradients of focal loss, probability and overlap
    sums,  # (B, K, H, 5)
    gradients,  # (2, B, K, H, W), written: of focal and dice loss
    losses,  # (B, K, 3), written: focal loss, dice loss, 1 if the class occurs in the image
    height,
    cells,  # H * W
    HEIGHT: tl.constexpr,  # the next power of two
    BLOCK: tl.constexpr,
):
    """One class of one image: what its sums make of its gradients."""
    class_map = tl.program_id(0).to(tl.int64)
    size = tl.num_programs(0).to(tl.int64) * cells
    row = tl.arange(0, HEIGHT)
    sums += (class_map * height + row) * 5
    focal = tl.sum(tl.load(sums, mask=row < height, other=0.0))
    probability = tl.sum(tl.load(sums + 1, mask=row < height, other=0.0))
    overlap = tl.sum(tl.load(sums + 2, mask=row < height, other=0.0))
    own = tl.sum(tl.load(sums + 3, mask=row < height, other=0.0))
    counted = tl.maximum(tl.sum(tl.load(sums + 4, mask=row < height, other=0.0)), 1.0)

    union = probability + own + 1.0
    ratio = (2.0 * overlap + 1.0) / union
    present = tl.where(own > 0, 1.0, 0.0)
    losses += class_map * 3
    tl.store(losses, focal / counted)
    tl.store(losses + 1, (1.0 - ratio) * present)
    tl.store(losses + 2, present)
    by_probability, by_overlap = ratio / union * present, -2.0 / union * present
    for start in range(0, cells, BLOCK):
        cell = start + tl.arange(0, BLOCK)
        inside = cell < cells
        place = class_map * cells + cell
        of_focal = tl.load(parts + place, mask=inside, other=0.0)
        of_probability = tl.load(parts + size + place, mask=inside, other=0.0)
        of_overlap = tl.load(parts + 2 * size + place, mask=inside, other=0.0)
        dice = of_probability * by_probability + of_overlap * by_overlap
        tl.store(gradients + place, of_focal / counted, mask=inside)
        tl.store(gradients + size + place, dice, mask=inside)


def rows_blocks(width: int, new_width: int) -> dict[str, int]:
    """Sizes of the blocks of :func:`rows_kernel`, powers of two."""
    padded = triton.next_power_of_2(width)
    block = min(triton.next_power_of_2(new_width), BLOCK_VALUES // padded)
    return {"WIDTH": padded, "BLOCK": max(16, block)}


def losses_blocks(height: int, width: int) -> dict[str, int]:
    """Sizes of the blocks of :func:`losses_kernel`, powers of two."""
    block = min(triton.next_power_of_2(height * width), 1024)
    return {"HEIGHT": triton.next_power_of_2(height), "BLOCK": block}


def fused_sums_and_gradients(
    logits: Tensor,
    target: Tensor,
    rows: BilinearAxis,
    columns: BilinearAxis,
    alpha: float,
    gamma: float,
    masked: bool,
) -> tuple[Tensor, Tensor]:
    """Focal and dice sums of a batch and their gradients.

    Args:
        logits: Class maps, shape (B, K, H, W), float32.
        target: Class indices, shape (B, h, w), int64; what is not in 0..K-1 is not a class.
        rows: How the maps are resized from H to h.
        columns: How they are resized from W to w.
        alpha: Weight of positive pixels in the focal loss.
        gamma: Exponent of the focal loss.
        masked: Whether pixels of no class are left out.

    Returns:
        Focal loss, dice loss and number of (image, class) pairs, shape (3,), and the gradients of
        the two losses, shape (2, B, K, H, W).
    """
    images, classes, height, width = logits.shape
    parts = logits.new_empty(3, *logits.shape)
    sums = logits.new_empty(images, classes, height, SUMS)
    gradients = logits.new_empty(2, *logits.shape)
    losses = logits.new_empty(images * classes, 3)
    rows_kernel[(height, classes, images)](
        logits.contiguous(),
        target.contiguous(),
        rows.index,
        rows.weight,
        rows.outputs,
        columns.index,
        columns.weight,
        columns.matrix,
        parts,
        sums,
        width,
        rows.new_size,
        columns.new_size,
        alpha,
        gamma,
        ROW_TAPS=len(rows.index),
        COLUMN_TAPS=len(columns.index),
        MASKED=masked,
        **rows_blocks(width, columns.new_size),
    )
    losses_kernel[(images * classes,)](
        parts, sums, gradients, losses, height, height * width, **losses_blocks(height, width)
    )
    return losses.sum(0), gradients
