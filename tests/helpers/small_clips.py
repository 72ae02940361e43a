"""A model of each supported family of open_clip: the real entries, made small."""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial
from typing import Any

import open_clip
import pytest
import timm.models.convnext
import timm.models.eva
import timm.models.fastvit
import timm.models.vision_transformer
import timm.models.vision_transformer_hybrid
import torch
from torch import nn

from tests.helpers.tiny_clip import tiny_clip

CAUSAL = tiny_clip()["text_cfg"]
BIDIRECTIONAL = {**CAUSAL, "context_length": 16, "no_causal_mask": True}
LAST = {**BIDIRECTIONAL, "pool_type": "last"}
WIDTH = 48  # of each of these ViTs, which have three layers and patches of 16 pixels
# Towers of tokens, and their text towers.
VITS: dict[str, dict[str, Any]] = {
    "ViT-B-16": CAUSAL,  # LAION's and DataComp's
    "ViT-B-16-quickgelu": CAUSAL,  # OpenAI's, DFN's and MetaCLIP's
    "EVA02-L-14": CAUSAL,
    "EVA01-g-14": CAUSAL,
    "EVA02-E-14": CAUSAL,
    "PE-Core-B-16": CAUSAL,
    "MobileCLIP-B": CAUSAL,
    "MobileCLIP2-L-14": BIDIRECTIONAL,
    "ViT-B-16-SigLIP": {**LAST, "proj_type": "none", "width": WIDTH},
    "ViT-B-16-SigLIP2": {**LAST, "proj_bias": True},
}
# Towers of convolutions, and their text towers.
FEATURE_MAPS: dict[str, dict[str, Any]] = {
    "convnext_base_w": CAUSAL,
    "convnext_large_d": CAUSAL,
    "MobileCLIP-S1": BIDIRECTIONAL,
    "MobileCLIP2-S3": BIDIRECTIONAL,
}
# One of each kind, for tests of what the others of its kind share.
OF_EACH_KIND = ("ViT-B-16", "EVA02-L-14", "ViT-B-16-SigLIP", "convnext_base_w", "MobileCLIP-S1")
_VIT = {"img_size": 64, "embed_dim": WIDTH, "depth": 3, "num_heads": 4}
_BUILDERS: tuple[tuple[Any, str, dict[str, Any]], ...] = (
    (timm.models.eva, "_create_eva", {**_VIT, "patch_size": 16}),
    (timm.models.vision_transformer, "_create_vision_transformer", {**_VIT, "patch_size": 16}),
    (timm.models.vision_transformer_hybrid, "_create_vision_transformer_hybrid", _VIT),
    (timm.models.vision_transformer_hybrid, "ConvStem", {"channels": (12, 12, WIDTH)}),
    (timm.models.convnext, "_create_convnext", {"depths": (1, 1, 1, 3), "dims": (8, 12, 16, 24)}),
)


def slow_but_for_one_of_each(names: Iterable[str]) -> list[Any]:
    """Parameters of a test that takes seconds for each family."""
    slow = pytest.mark.slow
    return [name if name in OF_EACH_KIND else pytest.param(name, marks=slow) for name in names]


def make_towers_small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let timm build the towers of these families with few and narrow layers."""
    for module, name, small in _BUILDERS:
        monkeypatch.setattr(module, name, partial(_build, getattr(module, name), small))
    fastvit = timm.models.fastvit
    monkeypatch.setattr(fastvit, "_create_fastvit", partial(_fastvit, fastvit._create_fastvit))


def _build(build: Any, small: dict[str, Any], *args: Any, **options: Any) -> nn.Module:
    return build(*args, **{**options, **small})


def _fastvit(build: Any, name: str, **options: Any) -> nn.Module:
    stages = len(options["layers"])
    widths = (8,) * (stages - 2) + (32, 32)  # attention has heads of 32
    return build(name, **{**options, "layers": (1,) * stages, "embed_dims": widths})


def clip_of(name: str) -> dict[str, Any]:
    """``clip`` for a model of open_clip with small towers."""
    config = open_clip.get_model_config(name)
    vision = config["vision_cfg"]
    vision["image_size"] = 64
    if "timm_model_name" not in vision:
        vision.update(width=WIDTH, layers=3, head_width=12)
    width = WIDTH if vision.get("timm_proj") == "none" else 32
    text = {**VITS, **FEATURE_MAPS}[name]
    return {"model": {**config, "embed_dim": width, "text_cfg": text}}


def loud(clip: Any) -> Any:
    """A model in which every weight shows: timm starts heads, biases and gates near nothing."""
    generator = torch.Generator().manual_seed(0)
    for parameter in clip.visual.parameters():
        noise = torch.randn(parameter.shape, generator=generator)
        parameter.data.add_(0.1 * noise)
    return clip
