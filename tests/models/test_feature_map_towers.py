"""Towers of convolutions: ConvNeXt, MobileCLIP-S."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from mmengine.config import ConfigDict
from mmseg.registry import MODELS

from mmseg_otseg.inference import set_classes
from mmseg_otseg.models import CLIPBackbone, load_clip, supported_models
from mmseg_otseg.models.clip.towers import image_tower
from tests.helpers.otseg_run import otseg_runner
from tests.helpers.small_clips import (
    FEATURE_MAPS,
    clip_of,
    loud,
    make_towers_small,
    slow_but_for_one_of_each,
)
from tests.helpers.small_configs import small
from tests.helpers.tiny_run import write_images


@pytest.fixture(autouse=True)
def _small_towers(monkeypatch: pytest.MonkeyPatch) -> None:
    make_towers_small(monkeypatch)


@pytest.fixture(params=FEATURE_MAPS)
def weights(request: pytest.FixtureRequest, tmp_path: Path) -> dict[str, Any]:
    """``clip`` with weights in a file of open_clip's own form."""
    clip = clip_of(request.param)
    torch.save({"state_dict": loud(load_clip(**clip)).state_dict()}, tmp_path / "clip.pt")
    return {**clip, "pretrained": str(tmp_path / "clip.pt")}


def test_it_is_open_clips_own_tower(weights: dict) -> None:
    model, image = loud(load_clip(weights["model"])), torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        expected = model.encode_image(image, normalize=True)
        features = CLIPBackbone(weights, project=False)(image)
        last = model.visual.trunk.forward_features(image)
    assert torch.allclose(features.global_token, expected, atol=1e-5)
    assert torch.allclose(features.local[0], last, atol=1e-5)


def test_a_place_is_what_the_tower_makes_of_it_alone(weights: dict) -> None:
    visual = load_clip(**weights).visual
    place = torch.randn(1, visual.trunk.num_features, 1, 1)
    with torch.no_grad():
        found = image_tower(visual).to_joint_space(place.flatten(1))
        expected = visual.head(visual.trunk.forward_head(place))
    assert torch.allclose(found, expected, atol=1e-5)


@pytest.mark.parametrize("size", [(96, 160), (50, 71)])
def test_any_size(size: tuple[int, int], weights: dict) -> None:
    backbone = CLIPBackbone(weights)
    last = len(backbone.tower.blocks) - 1
    backbone.out_indices = tuple({0, last})
    features = backbone(torch.randn(1, 3, *size))
    grid = tuple(-(-side // backbone.patch_size[0]) for side in size)
    assert [level.shape for level in features.local] == [(1, 32, *grid)] * (1 + (last > 0))


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_half_precision(precision: str, weights: dict) -> None:
    image = torch.randn(1, 3, 64, 128)
    full, half = (
        CLIPBackbone(clip)(image).global_token
        for clip in (weights, {**weights, "precision": precision})
    )
    assert half.dtype == torch.float32 and F.cosine_similarity(full, half) > 0.98


def test_what_it_has_not_is_refused(weights: dict) -> None:
    with pytest.raises(ValueError, match="visual_prompts=None"):
        CLIPBackbone(weights, visual_prompts={"num_tokens": 2})
    with pytest.raises(ValueError, match="double_class_embedding"):
        CLIPBackbone(weights, double_class_embedding=True)


@pytest.mark.parametrize("weights", slow_but_for_one_of_each(FEATURE_MAPS), indirect=True)
def test_a_run(weights: dict, tmp_path: Path) -> None:
    """Training, evaluation, resume, other classes, and no other weights."""
    write_images(tmp_path)
    without = {"model.backbone.visual_prompts": None, "model.backbone.drop_path_rate": 0.0}
    otseg_runner(tmp_path, weights, train_cfg=dict(max_iters=2), **without).train()
    runner = otseg_runner(tmp_path, weights, resume=True, train_cfg=dict(max_iters=4), **without)
    model = runner.train()
    assert runner.iter == 4 and runner.message_hub.get_scalar("val/hIoU").current() >= 0
    assert not any(p.requires_grad for p in model.backbone.parameters())
    set_classes(model, ["dog", "cat"])
    assert model.eval().predict(torch.randn(1, 3, 48, 80))[0].seg_logits.data.shape == (2, 48, 80)
    other = {**weights, "pretrained": None}
    with pytest.raises(ValueError, match="pretrained"):
        last = str(tmp_path / "run" / "iter_4.pth")
        otseg_runner(tmp_path, other, load_from=last, **without).load_or_resume()


def test_zegot_starts_from_its_own_alignment(weights: dict) -> None:
    kind = weights["model"]["vision_cfg"]["timm_proj"]
    if kind != "linear":
        nearest = "convnext_base_w" if kind == "mlp" else "MobileCLIP-B"
        with pytest.raises(ValueError, match=nearest):
            image_tower(load_clip(**weights).visual).linear_alignment()
        return
    config = small("zegot/voc_512.py", Path("none")).model
    config.clip, config.backbone.out_indices = ConfigDict(weights), (0, 2)
    model, image = MODELS.build(config).eval(), torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        aligned = model.neck(model.backbone(image)).pixels[1]
        expected = CLIPBackbone(weights)(image).local[0]
    assert torch.allclose(aligned, F.normalize(expected, dim=1), atol=1e-5)


def test_they_are_listed() -> None:
    assert {*FEATURE_MAPS, "convnext_xxlarge", "MobileCLIP2-S4"} <= {*supported_models()}
