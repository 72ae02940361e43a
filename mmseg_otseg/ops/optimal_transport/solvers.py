"""Sinkhorn's iterations on a kernel, on logarithms and as one graph; its implicit gradient."""

from __future__ import annotations

import math

import torch
from torch import Tensor

# Scaling factors of the kernel exp(-C/epsilon) reach exp(2 * span / epsilon); up to this quotient
# they and their products stay far inside the range of float32.
MAX_KERNEL_EXPONENT = 40.0
# The smallest value of a kernel whose costs stay within that range, with some room for rounding.
MIN_KERNEL_VALUE = math.exp(-MAX_KERNEL_EXPONENT - 1)
# Iterations between two checks of the stopping rule, on devices where a check makes the host wait.
ITERATIONS_PER_SYNC = 10


def solve_on_kernel(
    cost: Tensor, epsilon: float, max_iters: int, tol: float, plan: Tensor
) -> tuple[Tensor, Tensor]:
    """Sinkhorn scaling on the kernel; writes the plans to ``plan``, (P, N, M) like the costs.

    Returns:
        Iterations and convergence of each problem, shape (P,) both.
    """
    lowest = cost.amin(1, keepdim=True) / epsilon
    kernel = torch.add(lowest, cost, alpha=-1 / epsilon, out=plan).exp_()  # 1 at best in each row
    too_wide = kernel.amin((1, 2)) < MIN_KERNEL_VALUE
    if not cost.is_cuda and bool(too_wide.any()):
        raise ValueError("the costs of a row span more than cost_span: give the right bound")
    a, b = 1 / cost.shape[2], 1 / cost.shape[1]
    stopping = _StoppingRule(cost, max_iters, tol)
    v = before = cost.new_ones(len(cost), 1, cost.shape[1])
    mass = last_mass = products(v, kernel)  # (P, 1, M): u = a / mass
    while True:
        v_new = b / products(a / mass, kernel.transpose(1, 2))
        before = stopping.keep_stopped(before, v)
        v = stopping.keep_stopped(v, v_new)
        # To first order the relative change of exp(u / epsilon) is that of u / epsilon.
        change = epsilon * (last_mass / mass).sub_(1).abs_().mean((1, 2))
        if stopping.finished_after(change):
            break
        last_mass, mass = mass, products(v, kernel)
    kernel.mul_(a / products(before, kernel)).mul_(v.transpose(1, 2))
    return stopping.iterations, stopping.converged & ~too_wide


def solve_on_logarithms(
    cost: Tensor, epsilon: float, max_iters: int, tol: float
) -> tuple[Tensor, Tensor, Tensor]:
    """Sinkhorn on logarithms; costs (P, N, M) to plans, likewise, iterations and convergence."""
    # A constant in a row changes no plan, but takes digits from what differs within the row.
    log_kernel = (cost.detach().amin(1, keepdim=True) - cost) / epsilon
    _, columns, rows = cost.shape
    stopping = _StoppingRule(cost, max_iters, tol)
    u, v = torch.zeros_like(cost[:, 0]), torch.zeros_like(cost[:, :, 0])  # in units of epsilon
    while True:
        u_new = -math.log(rows) - torch.logsumexp(log_kernel + v[:, :, None], dim=1)
        v_new = -math.log(columns) - torch.logsumexp(log_kernel + u_new[:, None, :], dim=2)
        change = epsilon * (u_new - u).detach().abs().mean(1)
        u = stopping.keep_stopped(u, u_new)
        v = stopping.keep_stopped(v, v_new)
        if stopping.finished_after(change):
            # exp(u + v - C), with the v that makes the column sums right to the last digit.
            plan = torch.softmax(log_kernel + u[:, None, :], dim=2) / columns
            return plan, stopping.iterations, stopping.converged


def solve_in_loop(
    cost: Tensor, epsilon: float, max_iters: int, tol: float
) -> tuple[Tensor, Tensor, Tensor]:
    """Solve the problems of :func:`~mmseg_otseg.ops.sinkhorn` by ``torch.while_loop``.

    It computes the same as :func:`solve_on_kernel`, with the same stopping rule for each problem,
    but without control flow in Python: ``torch.export`` keeps the loop, and ONNX has a ``Loop``.
    """
    kernel = ((cost.amin(1, keepdim=True) - cost) / epsilon).exp()
    # Tensors, since a loop takes no number that depends on an image of any size.
    a, b = (cost.new_ones(()) / cost.shape[axis] for axis in (2, 1))

    def unfinished(count: Tensor, running: Tensor, *_: Tensor) -> Tensor:
        return (count < max_iters) & running.any()

    def iterate(count: Tensor, running: Tensor, iterations: Tensor, *state: Tensor) -> tuple:
        v, before, mass, last_mass = state
        v_new = b / torch.bmm(a / mass, kernel.transpose(1, 2))
        keep = running[:, None, None]
        before, v = torch.where(keep, v, before), torch.where(keep, v_new, v)
        change = epsilon * (last_mass / mass - 1).abs().mean((1, 2))
        # The first change is measured from an arbitrary start.
        goes_on = running & ((change >= tol) | (count < 1))
        iterations = iterations + running.long()
        return count + 1, goes_on, iterations, v, before, torch.bmm(v, kernel), mass.clone()

    start = cost.new_ones(cost.shape[0], 1, cost.shape[1])
    mass = torch.bmm(start, kernel)  # (P, 1, M)
    running = cost.new_ones(cost.shape[0], dtype=torch.bool)
    _, running, iterations, v, before, _, _ = torch.while_loop(
        unfinished,
        iterate,
        (
            torch.zeros((), dtype=torch.int64, device=cost.device),
            running,
            cost.new_zeros(cost.shape[0], dtype=torch.int64),
            start,
            start.clone(),
            mass,
            mass.clone(),
        ),
    )
    plan = kernel * (a / torch.bmm(before, kernel)) * v.transpose(1, 2)
    return plan, iterations, ~running


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


class _StoppingRule:
    """Counts iterations and remembers which problems of a batch have stopped."""

    def __init__(self, cost: Tensor, max_iters: int, tol: float) -> None:
        self.max_iters, self.tol = max_iters, tol
        self.count = 0
        self.converged = torch.zeros(cost.shape[0], dtype=torch.bool, device=cost.device)
        self.iterations = torch.zeros(cost.shape[0], dtype=torch.int64, device=cost.device)
        # Reading a CPU tensor costs nothing; reading one from a GPU makes the host wait.
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


def products(vector: Tensor, matrix: Tensor) -> Tensor:
    """Vectors (P, 1, A) times matrices (P, A, B), in full precision; (P, 1, B)."""
    if matrix.is_cuda:  # where matrix products may be set to run in TF32
        return (vector.transpose(1, 2) * matrix).sum(1, keepdim=True)
    return torch.bmm(vector, matrix)
