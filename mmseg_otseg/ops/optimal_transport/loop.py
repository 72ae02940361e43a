"""Sinkhorn as one graph with a loop in it, for models that leave Python."""

from __future__ import annotations

import torch
from torch import Tensor


def solve_in_loop(
    cost: Tensor, a: Tensor, b: Tensor, epsilon: float, max_iters: int, tol: float
) -> tuple[Tensor, Tensor, Tensor]:
    """Solve the problems of :func:`~mmseg_otseg.ops.sinkhorn` by ``torch.while_loop``.

    It computes the same as ``solve_on_kernel`` in :mod:`.solvers`, with the same stopping rule for
    each problem, but without control flow in Python: ``torch.export`` keeps the loop, and ONNX has
    a ``Loop``.

    Args:
        cost: Costs, shape (P, N, M): columns (prompts) before rows (pixels), float32, of a span
            within each row that ``MAX_KERNEL_EXPONENT`` in :mod:`.solvers` allows.
        a: Row sums, shape (P, M).
        b: Column sums, shape (P, N).
        epsilon: Weight of the entropy, in units of the cost.
        max_iters: The maximum number of iterations.
        tol: Stopping threshold for the mean absolute change of the row potential.

    Returns:
        Plans (P, N, M), and each problem's iterations (int64) and convergence (bool), shape (P,).
    """
    kernel = ((cost.amin(1, keepdim=True) - cost) / epsilon).exp()
    rows, columns = a[:, None], b[:, None]

    def unfinished(count: Tensor, running: Tensor, *_: Tensor) -> Tensor:
        return (count < max_iters) & running.any()

    def iterate(
        count: Tensor,
        running: Tensor,
        iterations: Tensor,
        v: Tensor,
        before: Tensor,
        mass: Tensor,
        last_mass: Tensor,
    ) -> tuple[Tensor, ...]:
        v_new = columns / torch.bmm(rows / mass, kernel.transpose(1, 2))
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
    plan = kernel * (rows / torch.bmm(before, kernel)) * v.transpose(1, 2)
    return plan, iterations, ~running
