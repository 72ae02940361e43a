from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from mmseg_otseg.ops import SinkhornResult, sinkhorn
from mmseg_otseg.ops.optimal_transport import plan as solution

pytestmark = pytest.mark.usefixtures("device")

DATA = Path(__file__).parents[1] / "data" / "sinkhorn.npz"
EXACT: dict[str, Any] = {"max_iters": 2000, "tol": 1e-14}  # for float64: solved to the last digits


def problems(
    count: int = 5, rows: int = 40, columns: int = 6, spread: float = 0.5, seed: int = 0
) -> Tensor:
    generator = torch.Generator(torch.get_default_device()).manual_seed(seed)
    return spread * torch.rand(count, rows, columns, generator=generator)


def cases() -> list[str]:
    with np.load(DATA) as file:
        return sorted({key.split("/")[0] for key in file.files})


def test_an_exported_program_takes_images_of_any_size() -> None:
    class Plan(torch.nn.Module):
        def forward(self, cost: Tensor) -> Tensor:
            return sinkhorn(cost, cost_span=1.0).plan

    rows = torch.export.Dim("rows", min=2)
    program = torch.export.export(Plan(), (problems(2),), dynamic_shapes=({1: rows},), strict=False)
    larger = problems(2, rows=50)
    torch.testing.assert_close(program.module()(larger), sinkhorn(larger).plan)


@pytest.mark.parametrize("backward", ["implicit", "unrolled"])
@pytest.mark.parametrize("case", cases())
def test_plans_are_the_authors(case: str, backward: str) -> None:
    with np.load(DATA) as file:
        cost, plan = (torch.as_tensor(file[f"{case}/{name}"]) for name in ("cost", "plan"))
        epsilon = float(file[f"{case}/epsilon"])
    result = sinkhorn(cost, epsilon, backward=backward)
    assert (result.plan - plan).abs().max() < 1e-4 * plan.abs().max()


@pytest.mark.parametrize("backward", ["implicit", "unrolled"])
@pytest.mark.parametrize("shape", [(2, 7, 3), (1, 5, 1), (1, 1, 4), (2, 2, 2)])
def test_gradient_is_that_of_finite_differences(shape: tuple[int, int, int], backward: str) -> None:
    cost, options = problems(*shape).double().requires_grad_(), dict(EXACT, backward=backward)
    assert torch.autograd.gradcheck(lambda c: sinkhorn(c, 0.1, **options).plan, cost)


def test_what_the_result_says_about_itself() -> None:
    result = sinkhorn(problems())
    assert result.converged.all() and (result.iterations < 100).all()
    error = (result.plan.sum(2) - 1 / 40).abs().amax(1)
    assert torch.allclose(result.marginal_error, error, atol=1e-8) and (error < 1e-5).all()
    stopped = sinkhorn(problems(), max_iters=2)
    assert not stopped.converged.any() and (stopped.iterations == 2).all()


@pytest.mark.parametrize("epsilon", [0.05, 1e-3])
def test_half_precision_stays_finite(epsilon: float, device: torch.device) -> None:
    cost = problems(4, 64, 6, spread=2.0).bfloat16().requires_grad_()
    with torch.autocast(device.type, dtype=torch.bfloat16):
        result = sinkhorn(cost, epsilon)
    assert result.plan.dtype == torch.float32 and result.plan.isfinite().all()
    assert torch.allclose(result.plan.sum(1), torch.tensor(1 / 6), rtol=1e-4)
    (result.plan * cost).sum().backward()
    assert cost.grad.dtype == torch.bfloat16 and cost.grad.isfinite().all()


@pytest.mark.parametrize("epsilon", [0.05, 0.004])
def test_problems_do_not_know_of_each_other(epsilon: float) -> None:
    easy, hard = problems(3, spread=0.02), problems(2, spread=2.0, seed=3)
    together = sinkhorn(torch.cat([easy, hard]), epsilon, cost_span=2.0)
    for index, cost in enumerate([*easy, *hard]):
        alone = sinkhorn(cost[None], epsilon, cost_span=2.0)
        assert alone.iterations[0] == together.iterations[index]
        assert torch.allclose(alone.plan[0], together.plan[index], rtol=1e-6, atol=0)
    assert together.iterations[0] < together.iterations[-1]


@pytest.mark.parametrize("epsilon", [0.1, 0.051])
def test_kernel_and_logarithms_agree(epsilon: float, monkeypatch: pytest.MonkeyPatch) -> None:
    cost = problems(spread=2.0).requires_grad_()

    def solve() -> tuple[SinkhornResult, Tensor]:
        result = sinkhorn(cost, epsilon)
        return result, torch.autograd.grad((result.plan * cost.detach()).sum(), cost)[0]

    kernel, kernel_gradient = solve()
    monkeypatch.setattr(solution, "MAX_KERNEL_EXPONENT", 0.0)
    logs, logs_gradient = solve()
    assert not torch.equal(kernel.plan, logs.plan)  # two ways were taken
    assert (kernel.plan - logs.plan).abs().max() < 1e-5 * logs.plan.max()
    assert (kernel_gradient - logs_gradient).abs().max() < 1e-3 * logs_gradient.abs().max()
    assert (kernel.iterations - logs.iterations).abs().max() <= 2


@pytest.mark.parametrize("backward", ["implicit", "unrolled"])
def test_large_costs_keep_the_column_sums(backward: str) -> None:
    cost = problems(spread=500.0) + 500 * torch.rand(5, 40, 1)  # 10,000 times epsilon
    plan = sinkhorn(cost, 0.05, backward=backward).plan
    assert (6 * plan.sum(1) - 1).abs().max() < 1e-5
    # What is the same within a row decides nothing.
    easy = problems(spread=0.5)
    shifted = sinkhorn(easy + 500, 0.05, backward=backward).plan
    assert torch.allclose(shifted, sinkhorn(easy, 0.05).plan, rtol=2e-2)  # 500 has 5 digits less


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"cost": torch.zeros(4, 3)}, r"\(P, M, N\)"),
        ({"epsilon": float("nan")}, "epsilon .* nan"),
        ({"backward": "finite"}, "backward"),
        ({"cost": 9 * torch.eye(4)[None, :, :3], "cost_span": 1.0}, "cost_span"),
    ],
)
def test_wrong_arguments_are_named(options: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        sinkhorn(**{"cost": torch.zeros(1, 4, 3), **options})


def test_as_an_operation_of_torch() -> None:
    cost = torch.rand(2, 3, 20, requires_grad=True)
    for span in (1.0, 10.0):  # on the kernel, and on logarithms
        settings = (0.05, 100, 1e-6, span)
        torch.library.opcheck(solution.sinkhorn_operation, (cost, *settings))
    plan = torch.rand(2, 3, 20)
    torch.library.opcheck(solution.gradient_operation, (plan, plan, 0.05))


def test_a_gradient_of_plans_that_have_not_converged_warns() -> None:
    cost = problems(spread=2.0).requires_grad_()
    with pytest.warns(RuntimeWarning, match=r"max_iters=100.*epsilon=0\.001"):
        sinkhorn(cost, 0.001)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        sinkhorn(cost.detach(), 0.001)  # no gradient
        sinkhorn(cost, 0.05)  # converges
