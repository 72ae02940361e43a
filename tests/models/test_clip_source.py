from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import open_clip
import pytest
from open_clip.transformer import QuickGELU
from safetensors.torch import save_file
from torch import nn

from mmseg_otseg.models import load_clip
from mmseg_otseg.models.clip import resolve_clip
from mmseg_otseg.models.clip.source import CONFIG_FILE


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
