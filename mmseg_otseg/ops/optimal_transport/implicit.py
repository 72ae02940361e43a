"""Sinkhorn with the implicit gradient, for autograd and for compiled graphs."""

from __future__ import annotations

import os
from collections.abc import Iterator
from importlib.util import find_spec
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from .solvers import (
    MAX_KERNEL_EXPONENT,
    MIN_KERNEL_VALUE,
    plan_by_logarithms,
    products,
    solve_on_kernel,
)

# The environment variable that turns the Triton kernels on, and the largest problems they take.
FUSED = "MMSEG_OTSEG_TRITON"
FUSED_MAX_ROWS, FUSED_MAX_COLUMNS = 128 * 128, 32
# Costs that a CPU works on at a time, so that they stay in its cache.
CACHED_COSTS = 2**20


def implicit_sinkhorn(
    cost: Tensor,
    a: Tensor,
    b: Tensor,
    epsilon: float,
    max_iters: int,
    tol: float,
    cost_span: float,
) -> tuple[Tensor, Tensor, Tensor]:
    """Solve the problems of :func:`~mmseg_otseg.ops.sinkhorn`, differentiably.

    Only the plan is kept for the backward pass. In a compiled graph, and with the fused kernels,
    the solution is one operation and its gradient another.

    Args:
        cost: Costs, shape (P, N, M): columns (prompts) before rows (pixels), contiguous.
        a: Row sums, shape (P, M).
        b: Column sums, shape (P, N).
        epsilon: Weight of the entropy, in units of the cost.
        max_iters: The maximum number of iterations.
        tol: Stopping threshold for the mean absolute change of the row potential.
        cost_span: Bound on ``max(C) - min(C)`` within a row. It chooses between the kernel and
            logarithms; if it is too small, solving raises ValueError on a CPU, and on a GPU marks
            the problem as not converged.

    Returns:
        Plans (P, N, M), and each problem's iterations (int64) and convergence (bool), shape (P,).
    """
    as_operation = torch.compiler.is_compiling() or runs_fused(cost)
    run = sinkhorn_operation if as_operation else _ImplicitSinkhorn.apply
    return run(cost, a, b, epsilon, max_iters, tol, cost_span)


def runs_fused(values: Tensor) -> bool:
    """Whether the Triton kernels are enabled and take these values, shape (P, N, M)."""
    return (
        os.environ.get(FUSED, "0") == "1"
        and values.is_cuda
        and values.dtype == torch.float32
        and find_spec("triton") is not None
        and values.shape[1] <= FUSED_MAX_COLUMNS
        and values.shape[2] <= FUSED_MAX_ROWS
    )


def _solve(
    cost: Tensor,
    a: Tensor,
    b: Tensor,
    epsilon: float,
    max_iters: int,
    tol: float,
    cost_span: float,
) -> tuple[Tensor, Tensor, Tensor]:
    """What :func:`implicit_sinkhorn` computes, without a graph."""
    on_kernel = cost_span / epsilon <= MAX_KERNEL_EXPONENT
    if on_kernel and runs_fused(cost):
        from .triton_kernels import fused_sinkhorn

        return fused_sinkhorn(cost, a, b, epsilon, max_iters, tol, MIN_KERNEL_VALUE)
    plan = torch.empty_like(cost)
    iterations = torch.empty(len(cost), dtype=torch.int64, device=cost.device)
    converged = torch.empty(len(cost), dtype=torch.bool, device=cost.device)
    solve = solve_on_kernel if on_kernel else plan_by_logarithms
    for part in _parts(cost):
        iterations[part], converged[part] = solve(
            cost[part], a[part], b[part], epsilon, max_iters, tol, plan[part]
        )
    return plan, iterations, converged


def _gradient(plan: Tensor, grad_plan: Tensor, epsilon: float) -> Tensor:
    """Gradient with respect to the costs, all (P, N, M), of plans that :func:`_solve` made."""
    if runs_fused(plan):
        from .triton_kernels import fused_gradient

        return fused_gradient(plan, grad_plan, epsilon)
    gradient = torch.empty_like(plan)
    for part in _parts(plan):
        implicit_cost_gradient(plan[part], grad_plan[part], epsilon, gradient[part])
    return gradient


def _parts(cost: Tensor) -> Iterator[slice]:
    """Problems to work on at a time: all on a GPU, as many as the cache holds on a CPU."""
    size = len(cost) if cost.is_cuda else CACHED_COSTS // cost[0].numel() if len(cost) else 1
    size = max(1, size)
    return (slice(start, start + size) for start in range(0, len(cost), size))


def _keep_plan(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor, Tensor]) -> None:
    plan, iterations, converged = output
    ctx.epsilon = inputs[3]
    ctx.save_for_backward(plan)
    ctx.mark_non_differentiable(iterations, converged)


class _ImplicitSinkhorn(torch.autograd.Function):
    """For eager steps: autograd and tracers see every operation inside."""

    forward = staticmethod(_solve)
    setup_context = staticmethod(_keep_plan)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_plan: Tensor, *_: Any) -> tuple[Tensor | None, ...]:
        (plan,) = ctx.saved_tensors
        return _gradient(plan, grad_plan, ctx.epsilon), *([None] * 6)


sinkhorn_operation = torch.library.custom_op("mmseg_otseg::sinkhorn", _solve, mutates_args=())
gradient_operation = torch.library.custom_op(
    "mmseg_otseg::sinkhorn_gradient", _gradient, mutates_args=()
)


@sinkhorn_operation.register_fake
def _(cost: Tensor, *_: Any) -> tuple[Tensor, Tensor, Tensor]:
    iterations = cost.new_empty(len(cost), dtype=torch.int64)
    return torch.empty_like(cost), iterations, cost.new_empty(len(cost), dtype=torch.bool)


@gradient_operation.register_fake
def _(plan: Tensor, *_: Any) -> Tensor:
    return torch.empty_like(plan)


def _operation_backward(ctx: Any, grad_plan: Tensor, *_: Any) -> tuple[Tensor | None, ...]:
    (plan,) = ctx.saved_tensors
    return gradient_operation(plan, grad_plan, ctx.epsilon), *([None] * 6)


sinkhorn_operation.register_autograd(_operation_backward, setup_context=_keep_plan)


def implicit_cost_gradient(
    plan: Tensor, grad_plan: Tensor, epsilon: float, out: Tensor | None = None
) -> Tensor:
    r"""Gradient with respect to the costs, given the one with respect to the plan.

    Differentiating the two marginal constraints gives a symmetric linear system for the potentials.
    Eliminating the M row potentials leaves an N x N Schur complement, which is the Laplacian of the
    graph that joins two prompts as strongly as they share pixels. Its null space (adding a constant
    to all column potentials) is filled by a rank-one term, which changes no plan.

    Args:
        plan: Transport plans, shape (P, N, M): columns (prompts) before rows (pixels).
        grad_plan: Gradient of the loss with respect to ``plan``, same shape.
        epsilon: The entropy weight the plan was solved with.
        out: Where to write the result, same shape.

    Returns:
        Gradient of the loss with respect to the costs, shape (P, N, M).
    """
    row_mass = plan.sum(1, keepdim=True).clamp_min_(torch.finfo(plan.dtype).tiny)  # (P, 1, M)
    scratch = plan / row_mass
    coupling = torch.bmm(scratch, plan.transpose(1, 2)).double()  # (P, N, N)
    coupling.diagonal(dim1=1, dim2=2).zero_()
    # Diagonal from the off-diagonal sums, so that nothing cancels when the plan is almost hard.
    laplacian = torch.diag_embed(coupling.sum(2)) - coupling
    columns = plan.shape[1]
    scale = plan.sum(2).mean(1).double()[:, None, None]
    identity = torch.eye(columns, dtype=laplacian.dtype, device=plan.device)
    laplacian += scale * (1.0 / columns + 1e-12 * identity)

    out = torch.mul(plan, grad_plan, out=out)
    row_load = out.sum(1, keepdim=True) / row_mass  # (P, 1, M)
    torch.add(row_load / epsilon, grad_plan, alpha=-1 / epsilon, out=out)
    # plan * (row_load - grad) sums to zero over all: the right-hand side has no null-space part.
    residual = torch.mul(plan, out, out=scratch).sum(2)  # (P, N)
    y = torch.linalg.solve_ex(laplacian, residual.double()[:, :, None])[0].to(plan.dtype)
    x = products(y.transpose(1, 2), plan) / row_mass  # (P, 1, M)
    return out.add_(x).sub_(y).mul_(plan)
