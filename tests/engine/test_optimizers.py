from __future__ import annotations

from typing import Any

import pytest
import torch
from mmengine.config import Config, ConfigDict
from mmseg.registry import OPTIM_WRAPPER_CONSTRUCTORS, PARAM_SCHEDULERS
from torch import nn

from mmseg_otseg.errors import UserError
from tests.helpers.paths import ROOT


class Model(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.backbone = nn.Sequential(nn.Linear(2, 2), nn.LayerNorm(2)).requires_grad_(False)
        self.decode_head = nn.Sequential(nn.Linear(2, 2), nn.LayerNorm(2))
        self.other = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2))


def build(
    model: nn.Module, paramwise: dict[str, Any] | None, kind: str = "AdamW"
) -> dict[str, dict]:
    """The optimizer's group of each parameter, by the parameter's name."""
    constructor = OPTIM_WRAPPER_CONSTRUCTORS.build(
        dict(
            type="TrainableOptimWrapperConstructor",
            optim_wrapper_cfg=ConfigDict(optimizer=dict(type=kind, lr=1.0, weight_decay=0.5)),
            paramwise_cfg=paramwise,
        )
    )
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    groups = constructor(model).optimizer.param_groups
    return {names[id(parameter)]: group for group in groups for parameter in group["params"]}


def test_frozen_parameters_stay_out_and_norms_do_not_decay() -> None:
    model = Model()
    trainable = {name for name, p in model.named_parameters() if p.requires_grad}
    assert set(build(model, None)) == trainable
    keys = dict(decode_head=dict(lr_mult=10.0))  # also where a key matches
    groups = build(model, dict(norm_decay_mult=0.0, custom_keys=keys))
    assert set(groups) == trainable
    for name, group in groups.items():
        decay = 0.0 if ".1." in name else 0.5
        rate = 10.0 if name.startswith("decode_head") else 1.0
        assert (group["weight_decay"], group["lr"]) == (decay, rate), name


def test_a_model_with_nothing_to_train() -> None:
    with pytest.raises(UserError, match="nothing to train"):
        build(Model().requires_grad_(False), None)


def test_a_typo_in_the_optimizers_name() -> None:
    with pytest.raises(UserError, match=r"Adamw.*AdamW"):
        build(Model(), None, "Adamw")


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
