"""Sinkhorn, score maps and their gradients on a GPU, one launch of a Triton kernel each."""

from __future__ import annotations

import torch
import triton
from torch import Tensor

from .triton_kernels import backward_kernel, scaling_kernel

BLOCK_VALUES = 8192  # of the costs that a program holds in registers at a time


def _blocks(columns: int, rows: int, least: int) -> dict[str, int]:
    """Sizes of a program's blocks, powers of two."""
    padded = max(least, triton.next_power_of_2(columns))
    block = min(triton.next_power_of_2(rows), BLOCK_VALUES // padded)
    return {"COLUMNS": padded, "BLOCK": max(16, block)}


def fused_sinkhorn(
    cost: Tensor, a: Tensor, b: Tensor, epsilon: float, max_iters: int, tol: float, smallest: float
) -> tuple[Tensor, Tensor, Tensor]:
    """Solve the problems of :func:`~mmseg_otseg.ops.sinkhorn` in one launch.

    Args:
        cost: Costs, shape (P, N, M): columns (prompts) before rows (pixels), float32, contiguous.
        a: Row sums, shape (P, M).
        b: Column sums, shape (P, N).
        epsilon: Weight of the entropy, in units of the cost.
        max_iters: Most iterations.
        tol: Stopping threshold for the mean absolute change of the row potential.
        smallest: What the kernel ``exp(-C/epsilon)``, 1 at best in each row, must not fall below;
            a problem that violates this is marked as not converged.

    Returns:
        Plans (P, N, M), and each problem's iterations (int64) and convergence (bool), shape (P,).
    """
    plan = torch.empty_like(cost)
    stop = (epsilon, max_iters, tol, smallest)
    _, iterations, converged = _scale(cost, a, b, plan, stop, 1)
    return plan, iterations, converged


def fused_score(
    similarity: Tensor, epsilon: float, max_iters: int, tol: float
) -> tuple[Tensor, Tensor]:
    """Score maps of the plans at costs ``1 - similarity``, with uniform marginals, in one launch.

    The plan is never stored: a problem leaves the two factors of each column behind.

    Args:
        similarity: Shape (P, N, M): prompts before pixels, float32, contiguous.
        epsilon, max_iters, tol: As in :func:`fused_sinkhorn`.

    Returns:
        Scores ``sum_n M N T S``, shape (P, M), and the factors, shape (P, 2, N), from which
        :func:`fused_score_gradient` rebuilds the plan.
    """
    score = similarity.new_empty(len(similarity), similarity.shape[2])
    a, b = _uniform(similarity)
    factors, *_ = _scale(similarity, a, b, score, (epsilon, max_iters, tol, 0.0), -1)
    return score, factors


def _uniform(values: Tensor) -> tuple[Tensor, Tensor]:
    """Uniform row sums (P, M) and column sums (P, N) of problems (P, N, M)."""
    problems, columns, rows = values.shape
    return (
        values.new_full((problems, rows), 1 / rows),
        values.new_full((problems, columns), 1 / columns),
    )


def _scale(
    values: Tensor, a: Tensor, b: Tensor, result: Tensor, stop: tuple[float, ...], sign: int
) -> tuple[Tensor, Tensor, Tensor]:
    """Launch :func:`scaling_kernel`; factors (P, 2, N), iterations and convergence (P,)."""
    problems, columns, rows = values.shape
    factors = values.new_empty(problems, 2, columns)
    iterations = torch.empty(problems, dtype=torch.int64, device=values.device)
    converged = torch.empty(problems, dtype=torch.int8, device=values.device)
    if problems:
        blocks = _blocks(columns, rows, 1)
        outputs = (result, factors, iterations, converged)
        scaling_kernel[(problems,)](
            values, a.contiguous(), b.contiguous(), *outputs, columns, rows, *stop, sign, **blocks
        )
    return factors, iterations, converged.bool()


def fused_gradient(plan: Tensor, grad_plan: Tensor, epsilon: float) -> Tensor:
    """The gradient of :func:`~mmseg_otseg.ops.sinkhorn` with respect to the costs, in one launch.

    Args:
        plan: Transport plans, shape (P, N, M), float32, contiguous.
        grad_plan: Gradient of the loss with respect to them, same shape.
        epsilon: The entropy weight the plans were solved with.

    Returns:
        Gradient of the loss with respect to the costs, shape (P, N, M).
    """
    return _differentiate(plan, plan, plan, grad_plan, epsilon, 1)


def fused_score_gradient(
    similarity: Tensor, factors: Tensor, grad_score: Tensor, epsilon: float
) -> Tensor:
    """The gradient of :func:`fused_score` with respect to the similarities, in one launch.

    Args:
        similarity: Shape (P, N, M), float32, contiguous.
        factors: What :func:`fused_score` returned with the scores, shape (P, 2, N).
        grad_score: Gradient of the loss with respect to the scores, shape (P, M).
        epsilon: The entropy weight.

    Returns:
        Gradient of the loss with respect to the similarities, shape (P, N, M).
    """
    a, _ = _uniform(similarity)
    return _differentiate(similarity, a, factors, grad_score, epsilon, -1)


def _differentiate(
    values: Tensor, a: Tensor, factors: Tensor, upstream: Tensor, epsilon: float, sign: int
) -> Tensor:
    """Launch :func:`backward_kernel`; (P, N, M)."""
    problems, columns, rows = values.shape
    gradient = torch.empty_like(values)
    if problems:
        inputs = (values, a, factors, upstream.contiguous())
        tiny = torch.finfo(torch.float32).tiny
        backward_kernel[(problems,)](
            *inputs, gradient, columns, rows, epsilon, tiny, sign, **_blocks(columns, rows, 16)
        )
    return gradient
