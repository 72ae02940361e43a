"""Entropic optimal transport between many pixels and a few prompts, with an exact gradient."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import dataclass
from importlib.util import find_spec

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from .sinkhorn_loop import solve_in_loop

# Scaling factors of the kernel exp(-C/epsilon) reach exp(2 * span / epsilon); up to this quotient
# they and their products stay far inside the range of float32.
MAX_KERNEL_EXPONENT = 40.0
# What a kernel holds at least, if the costs keep to that (with some room for rounding).
SMALLEST_KERNEL_VALUE = math.exp(-MAX_KERNEL_EXPONENT - 1)
# How many iterations run between two looks at the stopping rule on a device where looking makes
# the host wait.
ITERATIONS_PER_SYNC = 10
# The environment variable that turns the fused kernels of `sinkhorn_triton` on, and the largest
# problems that they take.
FUSED = "MMSEG_OTSEG_TRITON"
FUSED_MAX_ROWS, FUSED_MAX_COLUMNS = 128 * 128, 32
# Costs that a CPU works on at a time, so that they stay in its cache.
CACHED_COSTS = 2**20


@dataclass(frozen=True)
class SinkhornResult:
    """Outcome of :func:`sinkhorn` for P independent problems.

    Attributes:
        plan: Transport plans, shape (P, M, N), mass per (row, column); differentiable.
        iterations: Iterations each problem took, shape (P,), int64.
        marginal_error: Largest absolute difference of a row sum of the plan from its marginal,
            shape (P,), mass. (Column sums are exact: they are set last.)
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
    row_marginal: Tensor | None = None,
    column_marginal: Tensor | None = None,
    cost_span: float | None = None,
) -> SinkhornResult:
    r"""Solve P entropic optimal transport problems.

    Finds, for every problem, the plan that minimises
    :math:`\langle T, C\rangle + \epsilon\sum_{ij} T_{ij}(\log T_{ij} - 1)` with row sums
    ``row_marginal`` and column sums ``column_marginal``:
    :math:`T_{ij} = \exp((u_i + v_j - C_{ij})/\epsilon)`, where the potentials alternate
    ``u = eps log a - eps logsumexp_j((v - C)/eps)`` and the same for ``v``. A problem stops when
    the mean absolute change of its ``u`` falls below ``tol``; what the other problems of the batch
    do has no influence on it.

    The iterations run on the kernel ``exp(-C/eps)`` when its range allows and on logarithms
    otherwise. Half-precision costs are solved in float32, under autocast too. On a GPU,
    ``MMSEG_OTSEG_TRITON=1`` in the environment takes one Triton kernel for all iterations and one
    for the implicit gradient, where the costs' range allows it.

    Args:
        cost: Costs, shape (P, M, N), any floating type; M is meant to be large and N small.
        epsilon: Weight of the entropy, in units of the cost.
        max_iters: Most iterations (of one ``u`` and one ``v`` update each).
        tol: Stopping threshold for the mean absolute change of ``u``, in units of the cost.
        backward: ``"implicit"``: the gradient of the fixed point by the implicit function theorem,
            from the plan alone; one N x N system per problem. ``"unrolled"``: autograd through
            every iteration, the (memory-hungry) reference.
        row_marginal: Row sums, shape (M,) or (P, M), positive; None is 1/M. Not differentiated.
        column_marginal: Column sums, shape (N,) or (P, N), positive, of the same total; None is
            1/N. Not differentiated.
        cost_span: A known bound on ``max(C) - min(C)`` within a row (2 for cosine costs). It spares
            a GPU the one wait that reading the costs' range takes. If it is too small for a right
            plan, that is an error on a CPU; a GPU does not wait for it either, and the problem is
            marked as not converged.

    Returns:
        The plans (float32, or float64 for float64 costs) and how well each problem converged.

    Raises:
        ValueError: If ``cost`` is not a non-empty (P, M, N) floating tensor, ``epsilon``,
            ``max_iters`` or ``tol`` is out of range, a marginal has the wrong shape or is not
            positive, the marginals' totals differ, ``backward`` is unknown, or the costs span more
            than ``cost_span`` says.

    Source:
        Cuturi, "Sinkhorn Distances" (NIPS 2013); the gradient: Luise et al., "Differential
        Properties of Sinkhorn Approximation" (NeurIPS 2018), Theorem 3, with the Schur complement
        taken on the small side.
    """
    _check_arguments(cost, epsilon, max_iters, tol, backward)
    exporting = torch.compiler.is_exporting()  # a saved program has no place for autocast
    with nullcontext() if exporting else torch.autocast(cost.device.type, enabled=False):
        dtype = torch.float64 if cost.dtype == torch.float64 else torch.float32
        # Prompts before pixels: sums over pixels then run along contiguous memory.
        transposed = cost.to(dtype).transpose(1, 2).contiguous()
        problems, columns, rows = transposed.shape
        a = _marginal(row_marginal, problems, rows, transposed, "row_marginal")
        b = _marginal(column_marginal, problems, columns, transposed, "column_marginal")
        if row_marginal is not None or column_marginal is not None:
            _check_same_mass(a, b)
        if exporting:
            plan, iterations, converged = solve_in_loop(transposed, a, b, epsilon, max_iters, tol)
        elif backward == "implicit":
            if cost_span is None:
                row_span = transposed.detach().amax(1) - transposed.detach().amin(1)
                cost_span = float(row_span.max()) if problems else 0.0
            if _runs_fused(transposed, cost_span / epsilon):
                from .sinkhorn_triton import fused_sinkhorn

                plan, iterations, converged = fused_sinkhorn(
                    transposed, a, b, epsilon, max_iters, tol, SMALLEST_KERNEL_VALUE
                )
            else:
                plan, iterations, converged = _ImplicitSinkhorn.apply(
                    transposed, a, b, epsilon, max_iters, tol, cost_span
                )
        else:
            plan, iterations, converged = _solve_log(transposed, a, b, epsilon, max_iters, tol)
        error = (plan.detach().sum(1) - a).abs().amax(1)
    return SinkhornResult(plan.transpose(1, 2), iterations, error, converged)


def _runs_fused(cost: Tensor, exponent: float) -> bool:
    """Whether Triton's kernels are asked for and can solve problems of costs (P, N, M)."""
    return (
        os.environ.get(FUSED, "0") == "1"
        and cost.is_cuda
        and cost.dtype == torch.float32
        and exponent <= MAX_KERNEL_EXPONENT
        and cost.shape[1] <= FUSED_MAX_COLUMNS
        and cost.shape[2] <= FUSED_MAX_ROWS
        and find_spec("triton") is not None
    )


class _ImplicitSinkhorn(torch.autograd.Function):
    """Costs (P, N, M) to plans (P, N, M); keeps nothing but the plan for the backward pass."""

    @staticmethod
    def forward(ctx, cost, a, b, epsilon, max_iters, tol, cost_span):  # type: ignore[no-untyped-def]
        plan = torch.empty_like(cost)
        iterations = torch.empty(len(cost), dtype=torch.int64, device=cost.device)
        converged = torch.empty(len(cost), dtype=torch.bool, device=cost.device)
        solve = _solve_kernel if cost_span / epsilon <= MAX_KERNEL_EXPONENT else _plan_by_logarithms
        for part in _parts(cost):
            iterations[part], converged[part] = solve(
                cost[part], a[part], b[part], epsilon, max_iters, tol, plan[part]
            )
        ctx.epsilon = epsilon
        ctx.save_for_backward(plan)
        ctx.mark_non_differentiable(iterations, converged)
        return plan, iterations, converged

    @staticmethod
    @once_differentiable
    def backward(ctx, grad_plan, *_):  # type: ignore[no-untyped-def]
        (plan,) = ctx.saved_tensors
        gradient = torch.empty_like(plan)
        for part in _parts(plan):
            implicit_cost_gradient(plan[part], grad_plan[part], ctx.epsilon, gradient[part])
        return (gradient, *([None] * 6))


def _parts(cost: Tensor) -> Iterator[slice]:
    """Problems to work on at a time: all on a GPU, as many as the cache holds on a CPU."""
    size = len(cost) if cost.is_cuda else CACHED_COSTS // cost[0].numel() if len(cost) else 1
    size = max(1, size)
    return (slice(start, start + size) for start in range(0, len(cost), size))


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
    x = _products(y.transpose(1, 2), plan) / row_mass  # (P, 1, M)
    return out.add_(x).sub_(y).mul_(plan)


def _products(vector: Tensor, matrix: Tensor) -> Tensor:
    """Vectors (P, 1, A) times matrices (P, A, B), in full precision; (P, 1, B)."""
    if matrix.is_cuda:  # where matrix products may be set to run in TF32
        return (vector.transpose(1, 2) * matrix).sum(1, keepdim=True)
    return torch.bmm(vector, matrix)


def _solve_kernel(
    cost: Tensor, a: Tensor, b: Tensor, epsilon: float, max_iters: int, tol: float, plan: Tensor
) -> tuple[Tensor, Tensor]:
    """Sinkhorn scaling on the kernel; writes plans, (P, N, M) like the costs.

    Returns:
        Iterations and convergence of each problem, shape (P,) both.
    """
    lowest = cost.amin(1, keepdim=True) / epsilon
    kernel = torch.add(lowest, cost, alpha=-1 / epsilon, out=plan).exp_()  # 1 at best in each row
    too_wide = kernel.amin((1, 2)) < SMALLEST_KERNEL_VALUE
    if not cost.is_cuda and bool(too_wide.any()):
        raise ValueError("the costs of a row span more than cost_span says: give the right bound")
    a, b = a[:, None], b[:, None]
    stopping = _StoppingRule(cost, max_iters, tol)
    v = before = torch.ones_like(b)  # (P, 1, N)
    mass = last_mass = _products(v, kernel)  # (P, 1, M): u = a / mass
    while True:
        v_new = b / _products(a / mass, kernel.transpose(1, 2))
        before = stopping.keep_stopped(before, v)
        v = stopping.keep_stopped(v, v_new)
        # To first order the relative change of exp(u / epsilon) is that of u / epsilon.
        change = epsilon * (last_mass / mass).sub_(1).abs_().mean((1, 2))
        if stopping.finished_after(change):
            break
        last_mass, mass = mass, _products(v, kernel)
    kernel.mul_(a / _products(before, kernel)).mul_(v.transpose(1, 2))
    return stopping.iterations, stopping.converged & ~too_wide


def _plan_by_logarithms(
    cost: Tensor, a: Tensor, b: Tensor, epsilon: float, max_iters: int, tol: float, plan: Tensor
) -> tuple[Tensor, Tensor]:
    """What :func:`_solve_kernel` does, for costs whose kernel is out of range."""
    solution, iterations, converged = _solve_log(cost, a, b, epsilon, max_iters, tol)
    plan.copy_(solution)
    return iterations, converged


def _solve_log(
    cost: Tensor, a: Tensor, b: Tensor, epsilon: float, max_iters: int, tol: float
) -> tuple[Tensor, Tensor, Tensor]:
    """Sinkhorn on logarithms; costs (P, N, M) to plans, likewise, iterations and convergence."""
    # A constant in a row changes no plan, but takes digits from what differs within the row.
    log_kernel = (cost.detach().amin(1, keepdim=True) - cost) / epsilon
    log_a, log_b = a.log(), b.log()
    stopping = _StoppingRule(cost, max_iters, tol)
    u, v = torch.zeros_like(log_a), torch.zeros_like(log_b)  # in units of epsilon
    while True:
        u_new = log_a - torch.logsumexp(log_kernel + v[:, :, None], dim=1)
        v_new = log_b - torch.logsumexp(log_kernel + u_new[:, None, :], dim=2)
        change = epsilon * (u_new - u).detach().abs().mean(1)
        u = stopping.keep_stopped(u, u_new)
        v = stopping.keep_stopped(v, v_new)
        if stopping.finished_after(change):
            # exp(u + v - C), with the v that makes the column sums right to the last digit.
            plan = b[:, :, None] * torch.softmax(log_kernel + u[:, None, :], dim=2)
            return plan, stopping.iterations, stopping.converged


class _StoppingRule:
    """Counts iterations and remembers which problems of a batch have stopped."""

    def __init__(self, cost: Tensor, max_iters: int, tol: float) -> None:
        self.max_iters, self.tol = max_iters, tol
        self.count = 0
        self.converged = torch.zeros(cost.shape[0], dtype=torch.bool, device=cost.device)
        self.iterations = torch.zeros(cost.shape[0], dtype=torch.int64, device=cost.device)
        # Asking a CPU tensor costs nothing; asking a GPU makes the host wait.
        self.period = 1 if cost.device.type == "cpu" else ITERATIONS_PER_SYNC

    def keep_stopped(self, old: Tensor, new: Tensor) -> Tensor:
        """``new`` (P, ...) where a problem still runs, ``old`` where it has stopped."""
        return torch.where(self.converged.view(-1, *[1] * (new.dim() - 1)), old, new)

    def finished_after(self, change: Tensor) -> bool:
        """Close an iteration whose mean absolute change of u was ``change`` (P,)."""
        self.count += 1
        self.iterations += ~self.converged
        if self.count > 1:  # the first change is measured from an arbitrary start
            self.converged = self.converged | (change < self.tol)
        if self.count >= self.max_iters:
            return True
        return self.count % self.period == 0 and bool(self.converged.all())


def _marginal(value: Tensor | None, problems: int, size: int, like: Tensor, name: str) -> Tensor:
    """A marginal as a (P, size) tensor of the costs' type; None is uniform."""
    if value is None:
        return like.new_full((problems, size), 1.0 / size)
    if tuple(value.shape) not in ((size,), (problems, size)):
        raise ValueError(
            f"{name} must have shape ({size},) or ({problems}, {size}), got {tuple(value.shape)}"
        )
    value = value.detach().to(like)
    if not bool(((value > 0) & value.isfinite()).all()):
        raise ValueError(f"{name} must be positive and finite")
    return value.expand(problems, size)


def _check_same_mass(a: Tensor, b: Tensor) -> None:
    rows, columns = a.sum(1), b.sum(1)
    if not torch.allclose(rows, columns, rtol=1e-3):
        raise ValueError(
            f"row_marginal and column_marginal must have the same total (a missing one has 1), got "
            f"{rows[0].item():g} and {columns[0].item():g}"
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
        raise ValueError(f"epsilon must be positive and finite, got {epsilon}")
    if max_iters < 1 or tol < 0:
        raise ValueError(
            f"max_iters must be at least 1 and tol not negative, got {max_iters}, {tol}"
        )
    if backward not in ("implicit", "unrolled"):
        raise ValueError(f"backward must be 'implicit' or 'unrolled', got {backward!r}")
