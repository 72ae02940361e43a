from __future__ import annotations

import re
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

import open_clip
import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from mmseg_otseg.models.clip import load_clip
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
