"""Sinkhorn and its gradient on a GPU, one launch of a Triton kernel each.

They compute what :func:`~mmseg_otseg.ops.sinkhorn` computes on the kernel ``exp(-C/epsilon)``, one
program for each problem, with the stopping rule inside: the host waits for nothing.
They compile for GPUs and were checked in Triton's interpreter, but they were never run on a GPU.
"""

# mypy: disable-error-code="no-untyped-def"

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

BLOCK_VALUES = 8192  # of the costs that a program holds in registers at a time


@triton.jit
def scaling_kernel(
    costs,  # (P, N, M)
    plan,  # (P, N, M), written
    iterations,  # (P,), written
    converged,  # (P,), written, 0 or 1
    columns,
    rows,
    epsilon,
    max_iters,
    tol,
    min_kernel,
    COLUMNS: tl.constexpr,  # the next power of two
    BLOCK: tl.constexpr,  # rows at a time
):
    problem = tl.program_id(0).to(tl.int64)
    costs += problem * columns * rows
    plan += problem * columns * rows
    column = tl.arange(0, COLUMNS)
    is_column = column < columns
    v = tl.where(is_column, 1.0, 0.0)
    before = v
    lowest = 1.0
    count = 0
    running = 1
    done = 0
    while running > 0:
        load = tl.zeros([COLUMNS], dtype=tl.float32)
        change = 0.0
        for start in range(0, rows, BLOCK):
            row = start + tl.arange(0, BLOCK)
            is_row = row < rows
            inside = is_column[:, None] & is_row[None, :]
            place = column[:, None] * rows + row[None, :]
            kernel = _kernel(costs + place, inside, epsilon)
            lowest = tl.minimum(lowest, tl.min(tl.where(inside, kernel, 1.0)))
            mass = tl.where(is_row, tl.sum(kernel * v[:, None], 0), 1.0)
            last_mass = tl.where(is_row, tl.sum(kernel * before[:, None], 0), 1.0)
            u = tl.where(is_row, 1.0 / (rows * mass), 0.0)
            load += tl.sum(kernel * u[None, :], 1)
            change += tl.sum(tl.abs(last_mass / mass - 1.0))
        before = v
        v = tl.where(is_column, 1.0 / (columns * tl.where(is_column, load, 1.0)), 0.0)
        count += 1
        # The first change is measured from an arbitrary start.
        met = (count > 1) & (epsilon * change / rows < tol)
        running = tl.where(met | (count >= max_iters), 0, 1)
        done = tl.where(met, 1, 0)

    for start in range(0, rows, BLOCK):
        row = start + tl.arange(0, BLOCK)
        is_row = row < rows
        inside = is_column[:, None] & is_row[None, :]
        place = column[:, None] * rows + row[None, :]
        kernel = _kernel(costs + place, inside, epsilon)
        mass = tl.where(is_row, tl.sum(kernel * before[:, None], 0), 1.0)
        u = tl.where(is_row, 1.0 / (rows * mass), 0.0)
        tl.store(plan + place, kernel * u[None, :] * v[:, None], mask=inside)
    tl.store(iterations + problem, count)
    tl.store(converged + problem, tl.where(lowest < min_kernel, 0, done))


@triton.jit
def _kernel(costs, inside, epsilon):
    """``exp(-C/epsilon)`` of a block (COLUMNS, BLOCK), 1 at best in each row and 0 outside."""
    values = tl.load(costs, mask=inside, other=0.0)
    lowest = tl.min(tl.where(inside, values, float("inf")), 0)
    return tl.where(inside, tl.exp((lowest[None, :] - values) / epsilon), 0.0)


@triton.jit
def backward_kernel(
    plans,  # (P, N, M)
    upstream,  # (P, N, M), gradient of the plan
    result,  # (P, N, M), written: gradient of the costs
    columns,
    rows,
    epsilon,
    tiny,
    COLUMNS: tl.constexpr,  # the next power of two, at least 16 as tl.dot asks
    BLOCK: tl.constexpr,  # rows at a time
):
    problem = tl.program_id(0).to(tl.int64)
    plans += problem * columns * rows
    upstream += problem * columns * rows
    result += problem * columns * rows
    column = tl.arange(0, COLUMNS)
    is_column = column < columns

    coupling = tl.zeros([COLUMNS, COLUMNS], dtype=tl.float32)
    residual = tl.zeros([COLUMNS], dtype=tl.float32)
    column_mass = tl.zeros([COLUMNS], dtype=tl.float32)
    for start in range(0, rows, BLOCK):
        row = start + tl.arange(0, BLOCK)
        inside = is_column[:, None] & (row < rows)[None, :]
        place = column[:, None] * rows + row[None, :]
        plan = tl.load(plans + place, mask=inside, other=0.0)
        gradient = tl.load(upstream + place, mask=inside, other=0.0)
        row_mass = tl.maximum(tl.sum(plan, 0), tiny)
        row_load = tl.sum(plan * gradient, 0) / row_mass
        coupling += tl.dot(plan / row_mass[None, :], tl.trans(plan), input_precision="ieee")
        residual += tl.sum(plan * (row_load[None, :] - gradient), 1) / epsilon
        column_mass += tl.sum(plan, 1)

    # The Laplacian of the coupling, with its null space filled; 1 where there is no column.
    other = tl.arange(0, COLUMNS)
    diagonal = column[:, None] == other[None, :]
    both = is_column[:, None] & (other < columns)[None, :]
    weights = tl.where(diagonal, 0.0, coupling).to(tl.float64)
    scale = tl.sum(column_mass).to(tl.float64) / columns
    system = tl.where(diagonal, tl.sum(weights, 1)[:, None], 0.0) - weights
    system += scale * (1.0 / columns + tl.where(diagonal, 1e-12, 0.0))
    system = tl.where(both, system, tl.where(diagonal, 1.0, 0.0))
    right = residual.to(tl.float64)
    # Gauss-Jordan elimination; the matrix is positive definite and needs no pivots.
    for pivot in range(0, columns):
        pivot_row = tl.sum(tl.where((column == pivot)[:, None], system, 0.0), 0)
        pivot_column = tl.sum(tl.where((other == pivot)[None, :], system, 0.0), 1)
        pivot_value = tl.sum(tl.where(column == pivot, pivot_column, 0.0))
        pivot_right = tl.sum(tl.where(column == pivot, right, 0.0))
        factor = tl.where(column == pivot, 0.0, pivot_column / pivot_value)
        system -= factor[:, None] * pivot_row[None, :]
        right -= factor * pivot_right
    y = (right / tl.sum(tl.where(diagonal, system, 0.0), 1)).to(tl.float32)

    for start in range(0, rows, BLOCK):
        row = start + tl.arange(0, BLOCK)
        inside = is_column[:, None] & (row < rows)[None, :]
        place = column[:, None] * rows + row[None, :]
        plan = tl.load(plans + place, mask=inside, other=0.0)
        gradient = tl.load(upstream + place, mask=inside, other=0.0)
        row_mass = tl.maximum(tl.sum(plan, 0), tiny)
        row_load = tl.sum(plan * gradient, 0) / row_mass
        x = tl.sum(plan * y[:, None], 0) / row_mass
        of_costs = (row_load[None, :] - gradient) / epsilon + x[None, :] - y[:, None]
        tl.store(result + place, plan * of_costs, mask=inside)


def block_sizes(columns: int, rows: int, min_columns: int) -> dict[str, int]:
    """Sizes of a program's blocks, powers of two, with at least ``min_columns`` columns."""
    padded = max(min_columns, triton.next_power_of_2(columns))
    block = min(triton.next_power_of_2(rows), BLOCK_VALUES // padded)
    return {"COLUMNS": padded, "BLOCK": max(16, block)}


def fused_sinkhorn(
    cost: Tensor, epsilon: float, max_iters: int, tol: float, min_kernel: float
) -> tuple[Tensor, Tensor, Tensor]:
    """Solve the problems of :func:`~mmseg_otseg.ops.sinkhorn` in one launch.

    Args:
        cost: Costs, shape (P, N, M): columns (prompts) before rows (pixels), float32, contiguous.
        epsilon: Weight of the entropy, in units of the cost.
        max_iters: Maximum number of iterations.
        tol: Stopping threshold for the mean absolute change of the row potential.
        min_kernel: What the kernel ``exp(-C/epsilon)``, 1 at best in each row, must not fall below;
            a problem that violates this is marked as not converged.

    Returns:
        Plans (P, N, M), and each problem's iterations (int64) and convergence (bool), shape (P,).
    """
    problems, columns, rows = cost.shape
    plan = torch.empty_like(cost)
    iterations = torch.empty(problems, dtype=torch.int64, device=cost.device)
    converged = torch.empty(problems, dtype=torch.int8, device=cost.device)
    if problems:
        tensors = (cost, plan, iterations, converged)
        numbers = (columns, rows, epsilon, max_iters, tol, min_kernel)
        scaling_kernel[(problems,)](*tensors, *numbers, **block_sizes(columns, rows, 1))
    return plan, iterations, converged.bool()


def fused_gradient(plan: Tensor, grad_plan: Tensor, epsilon: float) -> Tensor:
    """The gradient of :func:`~mmseg_otseg.ops.sinkhorn` with respect to the costs, in one launch.

    Args:
        plan: Transport plans, shape (P, N, M), float32, contiguous.
        grad_plan: Gradient of the loss with respect to them, same shape.
        epsilon: The entropy weight the plans were solved with.

    Returns:
        Gradient of the loss with respect to the costs, shape (P, N, M).
    """
    problems, columns, rows = plan.shape
    gradient = torch.empty_like(plan)
    if problems:
        tensors = (plan, grad_plan.contiguous(), gradient)
        numbers = (columns, rows, epsilon, torch.finfo(torch.float32).tiny)
        backward_kernel[(problems,)](*tensors, *numbers, **block_sizes(columns, rows, 16))
    return gradient
