"""Sinkhorn, score maps and their gradients as Triton kernels, launched by :mod:`.triton_launch`.

They compute what :func:`~mmseg_otseg.ops.sinkhorn` computes on the kernel ``exp(-C/epsilon)``, one
program for each problem, with the stopping rule inside: the host waits for nothing.
They compile for GPUs and were checked in Triton's interpreter, but they were never run on a GPU.
"""

# mypy: disable-error-code="no-untyped-def"

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def scaling_kernel(
    values,  # (P, N, M), costs, or similarities if SIGN is -1
    a,  # (P, M)
    b,  # (P, N)
    result,  # (P, N, M) the plan, or (P, M) the score map if SIGN is -1, written
    scaling,  # (P, 2, N), written: the factors of the columns before and after the last iteration
    iterations,  # (P,), written
    converged,  # (P,), written, 0 or 1
    columns,
    rows,
    epsilon,
    max_iters,
    tol,
    smallest,
    SIGN: tl.constexpr,  # 1, or -1 for costs 1 - S of similarities S
    COLUMNS: tl.constexpr,  # the next power of two
    BLOCK: tl.constexpr,  # rows at a time
):
    problem = tl.program_id(0).to(tl.int64)
    values += problem * columns * rows
    a += problem * rows
    column = tl.arange(0, COLUMNS)
    is_column = column < columns
    b_values = tl.load(b + problem * columns + column, mask=is_column, other=0.0)

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
            kernel = _kernel(values + place, inside, epsilon, SIGN)
            lowest = tl.minimum(lowest, tl.min(tl.where(inside, kernel, 1.0)))
            mass = tl.where(is_row, tl.sum(kernel * v[:, None], 0), 1.0)
            last_mass = tl.where(is_row, tl.sum(kernel * before[:, None], 0), 1.0)
            u = tl.load(a + row, mask=is_row, other=0.0) / mass
            load += tl.sum(kernel * u[None, :], 1)
            change += tl.sum(tl.abs(last_mass / mass - 1.0))
        before = v
        v = tl.where(is_column, b_values / tl.where(is_column, load, 1.0), 0.0)
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
        plan = _plan(values + place, a + row, before, v, is_row, inside, epsilon, SIGN)
        if SIGN == 1:
            tl.store(result + problem * columns * rows + place, plan, mask=inside)
        else:
            similarity = tl.load(values + place, mask=inside, other=0.0)
            score = tl.sum(plan * similarity, 0) * (rows * columns)
            tl.store(result + problem * rows + row, score, mask=is_row)
    tl.store(scaling + problem * 2 * columns + column, before, mask=is_column)
    tl.store(scaling + problem * 2 * columns + columns + column, v, mask=is_column)
    tl.store(iterations + problem, count)
    tl.store(converged + problem, tl.where(lowest < smallest, 0, done))


@triton.jit
def _kernel(values, inside, epsilon, SIGN: tl.constexpr):
    """``exp(-C/epsilon)`` of a block (COLUMNS, BLOCK), 1 at best in each row and 0 outside."""
    costs = SIGN * tl.load(values, mask=inside, other=0.0)
    lowest = tl.min(tl.where(inside, costs, float("inf")), 0)
    return tl.where(inside, tl.exp((lowest[None, :] - costs) / epsilon), 0.0)


@triton.jit
def _plan(values, a, before, v, is_row, inside, epsilon, SIGN: tl.constexpr):
    """The plan in a block, of the columns' factors."""
    kernel = _kernel(values, inside, epsilon, SIGN)
    mass = tl.where(is_row, tl.sum(kernel * before[:, None], 0), 1.0)
    u = tl.load(a, mask=is_row, other=0.0) / mass
    return kernel * u[None, :] * v[:, None]


@triton.jit
def backward_kernel(
    values,  # (P, N, M), the plan, or similarities if SIGN is -1
    a,  # (P, M), read only if SIGN is -1
    scaling,  # (P, 2, N), likewise
    upstream,  # (P, N, M) gradient of the plan, or (P, M) of the score map if SIGN is -1
    result,  # (P, N, M), written: gradient of the costs, or of the similarities if SIGN is -1
    columns,
    rows,
    epsilon,
    tiny,
    SIGN: tl.constexpr,
    COLUMNS: tl.constexpr,  # the next power of two, at least 16 as tl.dot asks
    BLOCK: tl.constexpr,  # rows at a time
):
    problem = tl.program_id(0).to(tl.int64)
    values += problem * columns * rows
    result += problem * columns * rows
    a += problem * rows
    upstream += problem * rows * (columns if SIGN == 1 else 1)
    column = tl.arange(0, COLUMNS)
    is_column = column < columns
    factors = scaling + problem * 2 * columns + column
    before = tl.load(factors, mask=is_column & (SIGN == -1), other=0.0)
    v = tl.load(factors + columns, mask=is_column & (SIGN == -1), other=0.0)

    coupling = tl.zeros([COLUMNS, COLUMNS], dtype=tl.float32)
    residual = tl.zeros([COLUMNS], dtype=tl.float32)
    column_mass = tl.zeros([COLUMNS], dtype=tl.float32)
    for start in range(0, rows, BLOCK):
        row = start + tl.arange(0, BLOCK)
        is_row = row < rows
        inside = is_column[:, None] & is_row[None, :]
        place = column[:, None] * rows + row[None, :]
        value = tl.load(values + place, mask=inside, other=0.0)
        if SIGN == 1:
            plan = value
            gradient = tl.load(upstream + place, mask=inside, other=0.0)
        else:  # of the score, M N sum_n T S
            plan = _plan(values + place, a + row, before, v, is_row, inside, epsilon, SIGN)
            of_score = tl.load(upstream + row, mask=is_row, other=0.0) * (rows * columns)
            gradient = of_score[None, :] * value
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
        is_row = row < rows
        inside = is_column[:, None] & is_row[None, :]
        place = column[:, None] * rows + row[None, :]
        value = tl.load(values + place, mask=inside, other=0.0)
        if SIGN == 1:
            plan = value
            gradient = tl.load(upstream + place, mask=inside, other=0.0)
        else:  # of the score, M N sum_n T S
            plan = _plan(values + place, a + row, before, v, is_row, inside, epsilon, SIGN)
            of_score = tl.load(upstream + row, mask=is_row, other=0.0) * (rows * columns)
            gradient = of_score[None, :] * value
        row_mass = tl.maximum(tl.sum(plan, 0), tiny)
        row_load = tl.sum(plan * gradient, 0) / row_mass
        x = tl.sum(plan * y[:, None], 0) / row_mass
        of_costs = (row_load[None, :] - gradient) / epsilon + x[None, :] - y[:, None]
        if SIGN == -1:  # S is in the score itself, and in the costs 1 - S
            of_costs = of_score[None, :] - of_costs
        tl.store(result + place, plan * of_costs, mask=inside)
