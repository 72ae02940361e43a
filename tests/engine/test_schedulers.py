from __future__ import annotations

import pytest
import torch
from mmengine.config import Config
from mmseg.registry import PARAM_SCHEDULERS
from torch import nn

from tests.helpers.paths import ROOT


@pytest.mark.parametrize(
    "name, iterations", [("schedule_20k", 20000), ("schedule_40k", 40000), ("schedule_80k", 80000)]
)
def test_rates_are_those_of_the_paper(name: str, iterations: int) -> None:
    cfg = Config.fromfile(ROOT / "configs" / "_base_" / "schedules" / f"{name}.py")
    assert cfg.train_cfg.max_iters == iterations
    base = cfg.optim_wrapper.optimizer.lr
    parameters = [nn.Parameter(torch.zeros(1)), nn.Parameter(torch.zeros(1))]
    optimizer = torch.optim.SGD(
        [dict(params=parameters[:1], lr=base), dict(params=parameters[1:], lr=10 * base)]
    )
    scheduler = PARAM_SCHEDULERS.build(
        cfg.param_scheduler, default_args=dict(optimizer=optimizer, end=iterations)
    )
    rates = []
    for _ in range(iterations):
        rates.append([group["lr"] for group in optimizer.param_groups])
        optimizer.step()
        scheduler.step()

    def decayed(iteration: int, rate: float) -> float:
        return (rate - 1e-6) * (1 - iteration / iterations) ** 0.9 + 1e-6

    assert base == 2e-5
    for group, rate in enumerate((2e-5, 2e-4)):
        assert rates[0][group] == pytest.approx(1e-6 * rate, rel=1e-9)
        assert rates[750][group] == pytest.approx(0.5 * decayed(750, rate), rel=1e-5)
        for iteration in (1500, iterations // 2, iterations - 1):
            assert rates[iteration][group] == pytest.approx(decayed(iteration, rate), rel=1e-9)


def test_a_resumed_schedule_goes_on() -> None:
    def build() -> tuple:
        optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=1.0)
        cfg = dict(type="WarmupPolyLR", warmup_iters=3, end=9, by_epoch=False)
        return optimizer, PARAM_SCHEDULERS.build(cfg, default_args=dict(optimizer=optimizer))

    optimizer, scheduler = build()
    rates = []
    for iteration in range(9):
        if iteration == 2:
            saved = optimizer.state_dict(), scheduler.state_dict()
            optimizer, scheduler = build()
            optimizer.load_state_dict(saved[0])
            scheduler.load_state_dict(saved[1])
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    expected = [(1 - i / 9) * min(1, 1e-6 + (1 - 1e-6) * i / 3) for i in range(9)]
    assert rates == pytest.approx(expected, rel=1e-9)
