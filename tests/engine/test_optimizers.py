from __future__ import annotations

from typing import Any

from mmengine.config import ConfigDict
from mmseg.registry import OPTIM_WRAPPER_CONSTRUCTORS
from torch import nn


class Model(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.backbone = nn.Sequential(nn.Linear(2, 2), nn.LayerNorm(2)).requires_grad_(False)
        self.decode_head = nn.Sequential(nn.Linear(2, 2), nn.LayerNorm(2))
        self.other = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2))


def build(model: nn.Module, paramwise: dict[str, Any] | None) -> dict[str, dict]:
    """The optimizer's group of each parameter, by the parameter's name."""
    constructor = OPTIM_WRAPPER_CONSTRUCTORS.build(
        dict(
            type="TrainableOptimWrapperConstructor",
            optim_wrapper_cfg=ConfigDict(optimizer=dict(type="AdamW", lr=1.0, weight_decay=0.5)),
            paramwise_cfg=paramwise,
        )
    )
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    groups = constructor(model).optimizer.param_groups
    return {names[id(parameter)]: group for group in groups for parameter in group["params"]}


def test_frozen_parameters_stay_out() -> None:
    model = Model()
    groups = build(model, None)
    assert set(groups) == {name for name, p in model.named_parameters() if p.requires_grad}


def test_norms_do_not_decay_even_where_a_key_matches() -> None:
    groups = build(
        Model(), dict(norm_decay_mult=0.0, custom_keys=dict(decode_head=dict(lr_mult=10.0)))
    )
    assert [groups[f"decode_head.0.{n}"]["weight_decay"] for n in ("weight", "bias")] == [0.5, 0.5]
    assert [groups[f"decode_head.1.{n}"]["weight_decay"] for n in ("weight", "bias")] == [0.0, 0.0]
    assert [groups[f"decode_head.{i}.weight"]["lr"] for i in (0, 1)] == [10.0, 10.0]
    assert groups["other.1.weight"]["weight_decay"] == 0.0
    assert groups["other.0.weight"]["lr"] == 1.0
