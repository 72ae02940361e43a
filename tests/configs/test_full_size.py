"""Every config builds over ViT-B/16, with as many trainable parameters as its metafile states."""

from __future__ import annotations

from functools import cache
from typing import Any

import pytest
import torch
import yaml
from mmengine.config import Config
from mmseg.registry import MODELS

from mmseg_otseg.models.clip import frozen, load_clip
from tests.helpers.paths import ROOT
from tests.helpers.small_configs import CONFIGS, FOLDERS

ZEGCLIP_PARAMETERS = 13.8e6


@cache
def vit_b_16() -> torch.nn.Module:
    return load_clip("ViT-B-16")


@pytest.fixture
def full_size(monkeypatch: pytest.MonkeyPatch) -> None:
    """Build every part over one ViT-B/16 with random weights, and leave out what takes seconds."""

    def clip(model: str, **_: Any) -> torch.nn.Module:
        assert model == "ViT-B-16"
        return vit_b_16()

    package = "mmseg_otseg.models"
    for module in ("backbones", "necks", "text.template_prompts"):
        monkeypatch.setattr(f"{package}.{module}.load_clip", clip)
    monkeypatch.setattr(f"{package}.text.learnable_prompts.load_clip", clip)
    monkeypatch.setattr(
        f"{package}.text.template_prompts.encode_texts",
        lambda _, texts: torch.zeros(len(texts), 512),
    )
    monkeypatch.setattr(frozen, "weights_fingerprint", lambda _: torch.zeros(32).byte())


def stated(config: str) -> int:
    """Trainable parameters in the metafile beside a config."""
    metafile = ROOT / "configs" / config.split("/")[0] / "metafile.yaml"
    models = yaml.safe_load(metafile.read_text())["Models"]
    (model,) = (model for model in models if model["Config"] == f"configs/{config}")
    return int(model["Metadata"]["Parameters"])


@pytest.mark.parametrize("config", CONFIGS)
def test_trainable_parameters(config: str, full_size: None) -> None:
    model = MODELS.build(Config.fromfile(ROOT / "configs" / config).model)
    number = sum(p.numel() for p in model.parameters() if p.requires_grad)
    assert number == stated(config)
    if config.startswith("zegot"):
        assert number <= ZEGCLIP_PARAMETERS / 7


def test_model_index_lists_the_metafiles() -> None:
    """mim reads it beside the package's modules, where an installed package has its configs."""
    index = yaml.safe_load((ROOT / "mmseg_otseg" / "model-index.yml").read_text())
    assert set(index["Import"]) == {f"configs/{folder}/metafile.yaml" for folder in FOLDERS}


@pytest.mark.parametrize("folder", FOLDERS)
def test_metafile_lists_the_configs(folder: str) -> None:
    metafile = yaml.safe_load((ROOT / "configs" / folder / "metafile.yaml").read_text())
    listed = {model["Config"] for model in metafile["Models"]}
    assert listed == {f"configs/{config}" for config in CONFIGS if config.startswith(f"{folder}/")}
    names = [model["Name"] for model in metafile["Models"]]
    assert len(set(names)) == len(names)
    for model in metafile["Models"]:
        assert model["In Collection"] in {c["Name"] for c in metafile["Collections"]}
