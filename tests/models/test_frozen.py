from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from mmengine.runner.checkpoint import load_state_dict
from open_clip.transformer import QuickGELU
from torch import nn

from mmseg_otseg.models.clip import FrozenTower


class Model(nn.Module):
    def __init__(self, seed: int = 0, saved: bool = False, quick_gelu: bool = False) -> None:
        super().__init__()
        torch.manual_seed(seed)
        activation = QuickGELU() if quick_gelu else nn.GELU()
        layers = nn.Sequential(nn.Linear(3, 3), activation, nn.Dropout())
        self.tower = FrozenTower(layers, saved)
        self.head = nn.Linear(3, 1)


def test_loading_without_the_weights() -> None:
    saved = Model().state_dict()
    assert set(saved) == {"tower.fingerprint", "tower.quick_gelu", "head.weight", "head.bias"}
    saved["head.bias"] = torch.full((1,), 5.0)
    model = Model()
    load_state_dict(model, saved, strict=True)
    assert model.head.bias.item() == 5


@pytest.mark.parametrize("load", [nn.Module.load_state_dict, load_state_dict])
def test_loading_over_other_weights_is_refused(load: Callable) -> None:
    with pytest.raises(ValueError, match="pretrained"):
        load(Model(seed=1), Model(seed=0).state_dict())


def test_full_state_dict_replaces_the_weights() -> None:
    full, other = Model(seed=0, saved=True), Model(seed=1)
    assert "tower.module.0.weight" in full.state_dict()
    other.load_state_dict(full.state_dict(), strict=True)
    assert torch.equal(other.tower.module[0].weight, full.tower.module[0].weight)
    assert torch.equal(other.tower.fingerprint, full.tower.fingerprint)


def test_another_activation_is_refused() -> None:
    with pytest.raises(ValueError, match=r"QuickGELU.*GELU.*quick_gelu"):
        Model().load_state_dict(Model(quick_gelu=True).state_dict())


def test_a_tower_that_comes_with_a_checkpoint_brings_its_activation() -> None:
    full, other = Model(saved=True, quick_gelu=True), Model(seed=1)
    other.load_state_dict(full.state_dict(), strict=True)
    x = torch.randn(2, 3)
    assert torch.equal(other.tower(x), full.tower(x))
    # The config could not build this tower: checkpoints go on holding it.
    assert torch.equal(other.state_dict()["tower.module.0.weight"], full.tower.module[0].weight)
    assert bool(other.state_dict()["tower.quick_gelu"])


def test_replacing_the_weights_warns(logged: list[str]) -> None:
    Model().load_state_dict(Model(saved=True).state_dict())
    assert not logged
    Model(seed=1).load_state_dict(Model(saved=True).state_dict())
    assert "`clip`" in logged[0]
