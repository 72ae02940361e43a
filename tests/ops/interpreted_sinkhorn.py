"""What the fused kernels compute, in Triton's interpreter: ``test_sinkhorn_triton.py`` runs this.

The interpreter is chosen when Triton is imported, by TRITON_INTERPRET=1 in the environment.
"""

from __future__ import annotations

import os

import pytest
import torch

from mmseg_otseg.ops import sinkhorn
from mmseg_otseg.ops.optimal_transport import triton_kernels as fused
from mmseg_otseg.ops.optimal_transport.solvers import MIN_KERNEL_VALUE, implicit_cost_gradient

assert os.environ.get("TRITON_INTERPRET") == "1"

# Problems, rows, columns: one and two blocks of rows, sizes that are no powers of two.
SHAPES = [(1, 1, 1), (2, 17, 1), (2, 50, 6), (1, 64, 8), (1, 300, 32)]


def solve(cost: torch.Tensor, max_iters: int = 100) -> tuple[torch.Tensor, ...]:
    """Plans (P, N, M), iterations and convergence of costs (P, M, N)."""
    options = (0.05, max_iters, 1e-6, MIN_KERNEL_VALUE)
    return fused.fused_sinkhorn(cost.transpose(1, 2).contiguous(), *options)


@pytest.mark.parametrize("shape", SHAPES)
def test_plans(shape: tuple[int, int, int]) -> None:
    torch.manual_seed(sum(shape))
    cost = torch.rand(shape)
    expected = sinkhorn(cost, cost_span=2.0)
    plan, iterations, converged = solve(cost)
    difference = (plan.transpose(1, 2) - expected.plan).abs().max()
    assert difference < 2e-5 * expected.plan.max()
    assert torch.equal(converged, expected.converged)
    assert (iterations - expected.iterations).abs().max() <= 1  # rounding may decide the last one


def test_each_problem_stops_on_its_own() -> None:
    torch.manual_seed(0)
    cost = torch.cat([torch.rand(1, 40, 4), torch.zeros(1, 40, 4)])
    _, iterations, converged = solve(cost)
    assert iterations.tolist()[1] == 2 < iterations.tolist()[0] and converged.all()
    plan, iterations, converged = solve(cost, max_iters=3)
    assert iterations.tolist() == [3, 2] and converged.tolist() == [False, True]
    expected = sinkhorn(cost, max_iters=3, cost_span=2.0).plan
    assert torch.allclose(plan.transpose(1, 2), expected, rtol=1e-4, atol=1e-8)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("spread", [0.1, 2.0])
def test_gradients(shape: tuple[int, int, int], spread: float) -> None:
    torch.manual_seed(sum(shape))
    plan = sinkhorn(spread * torch.rand(shape), cost_span=2.0).plan.transpose(1, 2).contiguous()
    upstream = torch.randn_like(plan)
    expected = implicit_cost_gradient(plan.double(), upstream.double(), 0.05)
    today = implicit_cost_gradient(plan, upstream, 0.05)
    found = fused.fused_gradient(plan, upstream, 0.05)
    allowed = 1e-5 * expected.abs().max() + 2 * (today - expected).abs().max()
    assert (found - expected).abs().max() <= allowed + 1e-6 * plan.max()
