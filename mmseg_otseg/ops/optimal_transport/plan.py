"""Entropic optimal transport between many pixels and a few prompts, with an exact gradient."""

from __future__ import annotations

import itertools
import math
import os
import warnings
from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from mmseg_otseg.errors import UserError

from .solvers import (
    MAX_KERNEL_EXPONENT,
    MIN_KERNEL_VALUE,
    implicit_cost_gradient,
    solve_in_loop,
    solve_on_kernel,
    solve_on_logarithms,
)

# Relative error of the row sums from which on gradients are off by about a percent.
MAX_ROW_ERROR = 1e-3
# On a GPU, checking convergence makes the host wait, so only one call in this many checks.
CALLS_PER_CHECK = 1000
# The environment variable that turns the Triton kernels on, and the largest problems they take.
FUSED = "MMSEG_OTSEG_TRITON"
FUSED_MAX_ROWS, FUSED_MAX_COLUMNS = 128 * 128, 32
# Costs that a CPU works on at a time, so that they stay in its cache.
CACHED_COSTS = 2**20
_calls = itertools.count()


@dataclass(frozen=True)
class SinkhornResult:
    """Outcome of :func:`sinkhorn` for P independent problems.

    Attributes:
        plan: Transport plans, shape (P, M, N), mass per (row, column); differentiable.
        iterations: Iterations each problem took, shape (P,), int64.
        marginal_error: Largest absolute difference of a row sum of the plan from 1/M, shape (P,),
            mass. (Column sums are exact: they are set last.)
        converged: Whether the stopping rule was met, shape (P,), bool.
    """

    plan: Tensor
    iterations: Tensor
    marginal_error: Tensor
    converged: Tensor


def sinkhorn(
    cost: Tensor,
    epsilon: float = 0.05,
    max_iters: int = 100,
    tol: float = 1e-6,
    backward: str = "implicit",
    cost_span: float | None = None,
) -> SinkhornResult:
    r"""Solve P entropic optimal transport problems.

    Finds, for every problem, the plan that minimizes
    :math:`\langle T, C\rangle + \epsilon\sum_{ij} T_{ij}(\log T_{ij} - 1)` with row sums 1/M and
    column sums 1/N: :math:`T_{ij} = \exp((u_i + v_j - C_{ij})/\epsilon)`, where the potentials
    alternate ``u = -eps log M - eps logsumexp_j((v - C)/eps)`` and the same for ``v``. A problem
    stops when the mean absolute change of its ``u`` falls below ``tol``, whatever the other
    problems of the batch do.

    The iterations run on the kernel ``exp(-C/eps)`` when its range allows and on logarithms
    otherwise. Half-precision costs are solved in float32, under autocast too. On a GPU,
    ``MMSEG_OTSEG_TRITON=1`` in the environment takes one Triton kernel for all iterations and one
    for the implicit gradient, where the costs' range allows it.

    The implicit gradient is that of the exact plan, so it is off where the iterations end early.
    For cosine costs, 100 iterations leave it off by 1 % at ``epsilon=0.01`` and by 58 % at 0.001; a
    ``RuntimeWarning`` says so, which Python shows once. (On a GPU, one call in 1,000 checks.)

    Args:
        cost: Costs, shape (P, M, N), any floating type; M is meant to be large and N small.
        epsilon: Weight of the entropy, in units of the cost.
        max_iters: Maximum number of iterations, each one update of ``u`` and one of ``v``.
        tol: Stopping threshold for the mean absolute change of ``u``, in units of the cost.
        backward: ``"implicit"``: the gradient of the fixed point by the implicit function theorem,
            from the plan alone; one N x N system per problem. ``"unrolled"``: autograd through
            every iteration, the (memory-hungry) reference. An export (``torch.export``, ONNX)
            ignores it: the iterations are then one loop in the graph.
        cost_span: A known bound on ``max(C) - min(C)`` within a row (2 for cosine costs). With it,
            the host need not wait for a GPU to find the costs' range. If the bound is so small that
            the plan would be wrong, a CPU raises ValueError; on a GPU, where checking would mean
            waiting, the problem is marked as not converged.

    Returns:
        The plans (float32, or float64 for float64 costs) and how well each problem converged.

    Raises:
        ValueError: If ``cost`` is not a non-empty (P, M, N) floating tensor, ``epsilon``,
            ``max_iters`` or ``tol`` is out of range, ``backward`` is unknown, or the costs span
            more than ``cost_span`` says, or more than an exported program can solve at this
            ``epsilon``.

    Source:
        Cuturi, "Sinkhorn Distances" (NIPS 2013); the gradient: Luise et al., "Differential
        Properties of Sinkhorn Approximation" (NeurIPS 2018), Theorem 3, with the Schur complement
        taken on the small side.
    """
    _check_arguments(cost, epsilon, max_iters, tol, backward)
    # torch 2.9 calls every compilation an export.
    exporting = torch.compiler.is_exporting() and not torch.compiler.is_dynamo_compiling()
    # A saved program has no place for autocast.
    with nullcontext() if exporting else torch.autocast(cost.device.type, enabled=False):
        dtype = torch.float64 if cost.dtype == torch.float64 else torch.float32
        # Prompts before pixels: sums over pixels then run along contiguous memory.
        transposed = cost.to(dtype).transpose(1, 2).contiguous()
        if exporting:
            if cost_span is not None and cost_span / epsilon > MAX_KERNEL_EXPONENT:
                raise ValueError(
                    f"an exported Sinkhorn with costs of span {cost_span:g} needs epsilon >= "
                    f"{cost_span / MAX_KERNEL_EXPONENT:g}, got {epsilon:g}"
                )
            plan, iterations, converged = solve_in_loop(transposed, epsilon, max_iters, tol)
        elif backward == "implicit":
            if cost_span is None:
                row_span = transposed.detach().amax(1) - transposed.detach().amin(1)
                cost_span = float(row_span.max()) if len(cost) else 0.0
            # In a compiled graph, the solution is one operation and its gradient another.
            compiling = torch.compiler.is_compiling()
            run = sinkhorn_operation if compiling else _ImplicitSinkhorn.apply
            plan, iterations, converged = run(transposed, epsilon, max_iters, tol, cost_span)
        else:
            plan, iterations, converged = solve_on_logarithms(transposed, epsilon, max_iters, tol)
        rows = cost.shape[1]
        error = (plan.detach().sum(1) - 1 / rows).abs().amax(1)
    checks = backward == "implicit" and cost.requires_grad
    if checks and not (exporting or torch.compiler.is_compiling()):
        _warn_of_inexact_gradients(rows * error, epsilon, max_iters)
    return SinkhornResult(plan.transpose(1, 2), iterations, error, converged)


def _warn_of_inexact_gradients(error: Tensor, epsilon: float, max_iters: int) -> None:
    """Warn if the iterations ended early, by the largest relative errors (P,) of the row sums."""
    if error.is_cuda and next(_calls) % CALLS_PER_CHECK:
        return
    if float(error.mean()) > MAX_ROW_ERROR:
        warnings.warn(
            f"Sinkhorn has not converged within max_iters={max_iters} at epsilon={epsilon:g}, so "
            "its gradients are inexact: increase epsilon or max_iters",
            RuntimeWarning,
            stacklevel=3,
        )


def _check_arguments(
    cost: Tensor, epsilon: float, max_iters: int, tol: float, backward: str
) -> None:
    if cost.dim() != 3 or cost.shape[1] == 0 or cost.shape[2] == 0 or not cost.is_floating_point():
        raise ValueError(
            "cost must be a floating tensor of shape (P, M, N) with M and N at least 1, "
            f"got {tuple(cost.shape)} {cost.dtype}"
        )
    if not (math.isfinite(epsilon) and epsilon > 0):
        raise UserError(f"epsilon must be positive and finite, got {epsilon}")
    if max_iters < 1 or tol < 0:
        raise ValueError(
            f"max_iters must be at least 1 and tol not negative, got {max_iters}, {tol}"
        )
    if backward not in ("implicit", "unrolled"):
        raise ValueError(f"backward must be 'implicit' or 'unrolled', got {backward!r}")


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
    cost: Tensor, epsilon: float, max_iters: int, tol: float, cost_span: float
) -> tuple[Tensor, Tensor, Tensor]:
    """Solve the problems of :func:`sinkhorn` without a graph.

    Args:
        cost: Costs, shape (P, N, M): columns (prompts) before rows (pixels), contiguous.
        epsilon, max_iters, tol, cost_span: As in :func:`sinkhorn`; ``cost_span`` chooses between
            the kernel and logarithms.

    Returns:
        Plans (P, N, M), and each problem's iterations (int64) and convergence (bool), shape (P,).
    """
    on_kernel = cost_span / epsilon <= MAX_KERNEL_EXPONENT
    if on_kernel and runs_fused(cost):
        from .triton_kernels import fused_sinkhorn

        return fused_sinkhorn(cost, epsilon, max_iters, tol, MIN_KERNEL_VALUE)
    plan = torch.empty_like(cost)
    iterations = torch.empty(len(cost), dtype=torch.int64, device=cost.device)
    converged = torch.empty(len(cost), dtype=torch.bool, device=cost.device)
    for part in _parts(cost):
        problem = (cost[part], epsilon, max_iters, tol)
        if on_kernel:
            iterations[part], converged[part] = solve_on_kernel(*problem, plan[part])
        else:
            plan[part], iterations[part], converged[part] = solve_on_logarithms(*problem)
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


def _keep_plan(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    plan, iterations, converged = output
    ctx.epsilon = inputs[1]
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
        return _gradient(plan, grad_plan, ctx.epsilon), *([None] * 4)


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
    return gradient_operation(plan, grad_plan, ctx.epsilon), *([None] * 4)


sinkhorn_operation.register_autograd(_operation_backward, setup_context=_keep_plan)
