from __future__ import annotations

import pytest
import torch
from mmengine.config import Config
from mmseg.registry import PARAM_SCHEDULERS
from torch import nn

from tests.helpers.paths import ROOT


def test_rates_are_those_of_the_paper() -> None:
    iterations = 20000
    cfg = Config.fromfile(ROOT / "configs" / "_base_" / "schedules" / "schedule_20k.py")
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
