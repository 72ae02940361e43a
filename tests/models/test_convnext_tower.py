from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import open_clip
import pytest
import timm.models.convnext
import torch
import torch.nn.functional as F
from mmengine.config import ConfigDict
from mmengine.registry import init_default_scope
from mmseg.registry import MODELS
from torch import nn

from mmseg_otseg.apis import set_classes
from mmseg_otseg.models import CLIPBackbone, load_clip, supported_models
from mmseg_otseg.models.clip.towers import image_tower
from tests.configs.generated import small
from tests.models.test_towers import CAUSAL, loud, run
from tests.tiny_run import write_pictures

SMALL = {"depths": (1, 1, 1, 3), "dims": (8, 12, 16, 24)}


@pytest.fixture(autouse=True)
def _small_towers(monkeypatch: pytest.MonkeyPatch) -> None:
    init_default_scope("mmseg")
    module = timm.models.convnext
    monkeypatch.setattr(module, "_create_convnext", partial(_create_small, module._create_convnext))


def _create_small(create: Any, name: str, **options: Any) -> nn.Module:
    return create(name, **{**options, **SMALL})


@pytest.fixture(params=["convnext_base_w", "convnext_large_d"])
def weights(request: pytest.FixtureRequest, tmp_path: Path) -> dict[str, Any]:
    """``clip`` with weights in a file of open_clip's own form."""
    config = open_clip.get_model_config(request.param)
    config["vision_cfg"]["image_size"] = 64
    config = {**config, "embed_dim": 32, "text_cfg": CAUSAL}
    torch.save({"state_dict": loud(load_clip(config)).state_dict()}, tmp_path / "clip.pt")
    return {"model": config, "pretrained": str(tmp_path / "clip.pt")}


def test_it_is_open_clips_own_tower(weights: dict) -> None:
    model, image = loud(load_clip(weights["model"])), torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        expected = model.encode_image(image, normalize=True)
        features = CLIPBackbone(weights, project=False)(image)
        (last,) = model.visual.forward_intermediates(image, indices=1)["image_intermediates"]
    assert torch.allclose(features.global_token, expected, atol=1e-5)
    assert torch.allclose(features.local[0], last, atol=1e-5)


def test_a_place_is_what_the_tower_makes_of_it_alone(weights: dict) -> None:
    visual, place = load_clip(**weights).visual, torch.randn(1, 24, 1, 1)
    with torch.no_grad():
        found = image_tower(visual).to_joint_space(place.flatten(1))
        expected = visual.head(visual.trunk.forward_head(place))
    assert torch.allclose(found, expected, atol=1e-5)


@pytest.mark.parametrize("size", [(96, 160), (50, 71)])
def test_any_size(size: tuple[int, int], weights: dict) -> None:
    features = CLIPBackbone(weights, out_indices=(0, 2))(torch.randn(1, 3, *size))
    grid = tuple(-(-side // 32) for side in size)
    assert [level.shape for level in features.local] == [(1, 32, *grid)] * 2


def test_what_it_has_not_is_refused(weights: dict) -> None:
    with pytest.raises(ValueError, match="visual_prompts=None"):
        CLIPBackbone(weights, visual_prompts={"num_tokens": 2})
    with pytest.raises(ValueError, match="double_class_embedding"):
        CLIPBackbone(weights, double_class_embedding=True)


def test_a_run(weights: dict, tmp_path: Path) -> None:
    """Training, evaluation, resume, other classes, and no other weights."""
    write_pictures(tmp_path)
    without = {"model.backbone.visual_prompts": None, "model.backbone.drop_path_rate": 0.0}
    run(tmp_path, weights, train_cfg=dict(max_iters=2), **without).train()
    runner = run(tmp_path, weights, resume=True, train_cfg=dict(max_iters=4), **without)
    model = runner.train()
    assert runner.iter == 4 and runner.message_hub.get_scalar("val/hIoU").current() >= 0
    assert not any(p.requires_grad for p in model.backbone.parameters())
    set_classes(model, ["dog", "cat"])
    assert model.eval().predict(torch.randn(1, 3, 48, 80))[0].seg_logits.data.shape == (2, 48, 80)
    other = {**weights, "pretrained": None}
    with pytest.raises(ValueError, match="other CLIP"):
        last = str(tmp_path / "run" / "iter_4.pth")
        run(tmp_path, other, load_from=last, **without).load_or_resume()


def test_zegot_starts_from_its_own_alignment(weights: dict) -> None:
    config = small("zegot/voc_512.py", Path("none")).model
    config.clip, config.backbone.out_indices = ConfigDict(weights), (0, 2)
    if weights["model"]["vision_cfg"]["timm_proj"] == "mlp":
        with pytest.raises(ValueError, match="convnext_base_w"):
            MODELS.build(config)
        return
    model, image = MODELS.build(config).eval(), torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        aligned = model.neck(model.backbone(image)).pixels[1]
        expected = CLIPBackbone(weights)(image).local[0]
    assert torch.allclose(aligned, F.normalize(expected, dim=1), atol=1e-5)


def test_they_are_listed() -> None:
    assert {"convnext_base_w", "convnext_xxlarge"} <= {*supported_models()}
