"""CLIP's weights and activation, and towers that stay as they are."""

from __future__ import annotations

import json
import re
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import open_clip
import pytest
import torch
from mmengine.runner.checkpoint import load_state_dict
from open_clip.transformer import QuickGELU
from safetensors.torch import save_file
from torch import nn

from mmseg_otseg.models.clip import FrozenTower, load_clip, resolve_clip
from mmseg_otseg.models.clip.source import CONFIG_FILE
from tests.helpers.tiny_clip import save_archive


@pytest.fixture
def weights(clip_config: dict[str, Any]) -> dict[str, torch.Tensor]:
    return load_clip(clip_config, seed=7).state_dict()


def assert_same(clip: nn.Module, weights: dict[str, torch.Tensor]) -> None:
    for name, value in clip.state_dict().items():
        assert torch.equal(value, weights[name]), name


@pytest.mark.parametrize("kind", ["safetensors", "pt", "bin", "wrapped", "openai"])
def test_every_kind_of_file(kind: str, clip_config: dict, weights: dict, tmp_path: Path) -> None:
    path = tmp_path / {"safetensors": "w.safetensors", "bin": "w.bin"}.get(kind, "w.pt")
    if kind == "safetensors":
        save_file(weights, path)
    elif kind == "wrapped":
        torch.save({"epoch": 3, "state_dict": {f"module.{k}": v for k, v in weights.items()}}, path)
    elif kind == "openai":
        save_archive(path, load_clip(clip_config, seed=7))
    else:
        torch.save(weights, path)
    assert_same(load_clip(clip_config, str(path)), weights)


def test_unknown_models_and_tags_suggest_others(clip_config: dict) -> None:
    with pytest.raises(ValueError, match="ViT-B-16"):
        load_clip("ViT-B-17")
    with pytest.raises(FileNotFoundError, match=r"nowhere/w\.pt"):
        load_clip(clip_config, "nowhere/w.pt")
    with pytest.raises(ValueError, match=r"'opnai'.* openai"):
        load_clip("ViT-B-16", "opnai")


def test_no_network(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Known before the hub's client starts to try again and again."""

    def offline(*_: Any, **__: Any) -> None:
        raise urllib.error.URLError("Network is unreachable")

    monkeypatch.setattr(urllib.request, "urlopen", offline)
    monkeypatch.setattr(open_clip, "download_pretrained", lambda *_, **__: pytest.fail("tried"))
    with pytest.raises(ConnectionError, match=r"unreachable.*CLIP_WEIGHTS.*quick_gelu=True"):
        load_clip("ViT-B-16", "openai", cache_dir=str(tmp_path))


@pytest.mark.parametrize(
    "kind", ["other tensors", "one missing", "one too wide", "no file of this kind"]
)
def test_every_broken_file_is_named(
    kind: str, clip_config: dict, weights: dict, tmp_path: Path
) -> None:
    path = tmp_path / "w.pt"
    if kind == "other tensors":
        torch.save({"a": torch.ones(3)}, path)
    elif kind == "one missing":
        torch.save({k: v for k, v in weights.items() if k != "logit_scale"}, path)
    elif kind == "one too wide":
        torch.save({**weights, "positional_embedding": torch.ones(77, 99)}, path)
    else:
        save_file(weights, path)
    with pytest.raises(ValueError, match=re.escape(str(path))):
        load_clip(clip_config, str(path))


def test_transformers_layout_is_named(tmp_path: Path) -> None:
    layout = {
        "logit_scale": torch.ones(()),
        "vision_model.encoder.layers.0.layer_norm1.bias": torch.zeros(768),
    }
    save_file(layout, tmp_path / "model.safetensors")
    with pytest.raises(ValueError, match=r"model\.safetensors.* transformers.*open_clip_model"):
        load_clip("ViT-B-16", str(tmp_path / "model.safetensors"))


@pytest.fixture
def file(clip_config: dict[str, Any], tmp_path: Path) -> Path:
    """Weights that do not say what they belong to."""
    save_file(load_clip(clip_config).state_dict(), tmp_path / "w.safetensors")
    return tmp_path / "w.safetensors"


def write_config(beside: Path, content: Any) -> None:
    beside.with_name(CONFIG_FILE).write_text(json.dumps(content))


def activation(clip: nn.Module) -> type:
    """Of the image tower and the text tower, which have the same one."""
    kinds = {type(block.mlp.gelu) for block in clip.visual.transformer.resblocks}
    (kind,) = kinds | {type(block.mlp.gelu) for block in clip.transformer.resblocks}
    return kind


def test_every_tag_of_every_supported_model() -> None:
    for model in open_clip.list_models():
        for tag in open_clip.list_pretrained_tags_by_model(model):
            entry, source = open_clip.get_pretrained_cfg(model, tag), resolve_clip(model, tag)
            named = open_clip.get_model_config(model).get("quick_gelu", False)
            assert source.quick_gelu == (entry.get("quick_gelu", False) or named)
            assert source.mean == pytest.approx([255 * part for part in entry["mean"]])
            assert source.std == pytest.approx([255 * part for part in entry["std"]])


@pytest.mark.parametrize("quick_gelu", [True, False])
def test_the_file_beside_the_weights_says_it(
    quick_gelu: bool, clip_config: dict, file: Path, logged: list[str]
) -> None:
    model = {**clip_config, **({"quick_gelu": True} if quick_gelu else {})}
    pixels = {"mean": [0.5, 0.5, 0.5], "std": 0.25}
    write_config(file, {"model_cfg": model, "preprocess_cfg": pixels})
    clip = load_clip(clip_config, str(file))
    assert activation(clip) is (QuickGELU if quick_gelu else nn.GELU)
    source = resolve_clip(clip_config, str(file))
    assert (source.mean, source.std) == ((127.5,) * 3, (63.75,) * 3)
    assert len(logged) == 1


def test_the_setting_decides(clip_config: dict, file: Path) -> None:
    write_config(file, {"model_cfg": {**clip_config, "quick_gelu": True}})
    assert activation(load_clip(clip_config, str(file), quick_gelu=False)) is nn.GELU
    assert resolve_clip("ViT-B-16", "openai", quick_gelu=False).quick_gelu is False


def test_a_file_that_leaves_it_open_warns(clip_config: dict, file: Path, logged: list[str]) -> None:
    assert activation(load_clip(clip_config, str(file))) is nn.GELU
    assert "quick_gelu" in logged[-1] and str(file) in logged[-1]
    logged.clear()
    load_clip({**clip_config, "quick_gelu": False}, str(file))
    load_clip(clip_config, str(file), quick_gelu=True)
    assert not any("QuickGELU:" in message for message in logged) and len(logged) == 2


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
