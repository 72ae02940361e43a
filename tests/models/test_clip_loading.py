from __future__ import annotations

import io
import re
import urllib.error
import urllib.request
from dataclasses import replace
from pathlib import Path
from typing import Any

import open_clip
import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from mmseg_otseg.models.clip import clip_config, load_clip, resolve_clip
from mmseg_otseg.models.clip.loading import download_weights
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


def test_compact_token_table(clip_config: dict, weights: dict, tmp_path: Path) -> None:
    ids = torch.tensor([5, 320, 49406, 49407])
    compact = {name: value for name, value in weights.items() if name != "token_embedding.weight"}
    compact["token_embedding.ids"] = ids
    compact["token_embedding.rows"] = weights["token_embedding.weight"][ids].half()
    save_file(compact, tmp_path / "w.safetensors")
    table = load_clip(clip_config, str(tmp_path / "w.safetensors")).token_embedding.weight
    assert torch.equal(table[ids], weights["token_embedding.weight"][ids].half().float())
    assert not table[0].any()


def test_random_weights_depend_on_the_seed_alone(clip_config: dict) -> None:
    torch.manual_seed(1)
    first = load_clip(clip_config).state_dict()
    state = torch.random.get_rng_state()
    assert_same(load_clip(clip_config), first)
    assert torch.equal(torch.random.get_rng_state(), state)
    other = load_clip(clip_config, seed=1).state_dict()
    assert not torch.equal(first["visual.proj"], other["visual.proj"])


def test_unknown_model_suggests_others() -> None:
    with pytest.raises(ValueError, match="ViT-B-16"):
        load_clip("ViT-B-17")
    with pytest.raises(ValueError, match="text_cfg"):
        clip_config({"embed_dim": 8, "vision_cfg": {}})


def test_unknown_tag_lists_the_tags() -> None:
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


def test_an_earlier_download_needs_no_network(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(urllib.request, "urlopen", lambda *_, **__: pytest.fail("asked"))
    tag = {"hf_hub": "owner/name/"}
    snapshot = tmp_path / "models--owner--name" / "snapshots" / "abc"
    snapshot.mkdir(parents=True)
    (snapshot / "open_clip_model.safetensors").touch()
    (tmp_path / "models--owner--name" / "refs").mkdir()
    (tmp_path / "models--owner--name" / "refs" / "main").write_text("abc")
    source = replace(resolve_clip("ViT-B-16", "openai"), tag=tag)
    found = download_weights(source, str(tmp_path))
    assert found == snapshot / "open_clip_model.safetensors"


def broken_files(weights: dict[str, torch.Tensor]) -> dict[str, bytes]:
    """What may lie where a weights file should, by what is wrong with it."""

    def saved(content: Any) -> bytes:
        torch.save(content, buffer := io.BytesIO())
        return buffer.getvalue()

    position = "positional_embedding"
    return {
        "empty": b"",
        "text": b"no weights",
        "cut": saved(weights)[:5000],
        "list": saved([1, 2]),
        "empty dict": saved({}),
        "numbers": saved({"a": 1}),
        "state_dict is None": saved({"state_dict": None}),
        "other tensors": saved({"a": torch.ones(3)}),
        "one missing": saved({k: v for k, v in weights.items() if k != "logit_scale"}),
        "one too wide": saved({**weights, position: torch.ones(77, 99)}),
        "NaN": saved({**weights, "ln_final.weight": torch.full((32,), torch.nan)}),
        "infinite": saved({**weights, "visual.proj": torch.full((48, 32), torch.inf)}),
    }


@pytest.mark.parametrize("suffix", [".pt", ".safetensors"])
def test_every_broken_file_is_named(
    suffix: str, clip_config: dict, weights: dict, tmp_path: Path
) -> None:
    for kind, content in broken_files(weights).items():
        path = tmp_path / f"w{suffix}"
        path.write_bytes(content)
        with pytest.raises(ValueError, match=re.escape(str(path))):
            load_clip(clip_config, str(path))
            pytest.fail(f"{kind} was accepted")


def test_transformers_layout_is_named(tmp_path: Path) -> None:
    layout = {
        "logit_scale": torch.ones(()),
        "vision_model.encoder.layers.0.layer_norm1.bias": torch.zeros(768),
    }
    save_file(layout, tmp_path / "model.safetensors")
    with pytest.raises(ValueError, match=r"model\.safetensors.* transformers.*open_clip_model"):
        load_clip("ViT-B-16", str(tmp_path / "model.safetensors"))


def test_what_does_not_exist(clip_config: dict) -> None:
    with pytest.raises(FileNotFoundError, match=r"nowhere/w\.pt"):
        load_clip(clip_config, "nowhere/w.pt")
    with pytest.raises(ValueError, match=r"'openai'.*path"):
        load_clip(clip_config, "openai")
