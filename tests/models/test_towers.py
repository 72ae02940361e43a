"""The image towers of every supported family, and their text towers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import open_clip
import pytest
import torch
import torch.nn.functional as F
from mmengine.runner import Runner
from open_clip.timm_model import TimmModel
from torch import Tensor, nn

from mmseg_otseg.engine import ZeroShotRunner
from mmseg_otseg.errors import UserError
from mmseg_otseg.inference import set_classes
from mmseg_otseg.models import CLIPBackbone, load_clip
from mmseg_otseg.models.clip import towers
from mmseg_otseg.models.clip.timm_towers import image_tower
from mmseg_otseg.models.text import build_text_tower, encode_texts
from tests.helpers.small_clips import (
    FEATURE_MAPS,
    VITS,
    clip_of,
    loud,
    make_towers_small,
    slow_but_for_one_of_each,
)
from tests.helpers.tiny_run import tiny_config, write_images

ALL = (*VITS, *FEATURE_MAPS)
only_vits = pytest.mark.parametrize("name", VITS, indirect=True)


@pytest.fixture(autouse=True)
def _small_towers(monkeypatch: pytest.MonkeyPatch) -> None:
    make_towers_small(monkeypatch)


@pytest.fixture(params=ALL)
def name(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture
def weights(name: str, tmp_path: Path) -> dict[str, Any]:
    """``clip`` with weights in a file of open_clip's own form."""
    clip = clip_of(name)
    model = loud(load_clip(**clip))
    torch.save({"state_dict": model.state_dict(), "epoch": 3}, tmp_path / "clip.pt")
    return {**clip, "pretrained": str(tmp_path / "clip.pt")}


def test_it_is_open_clips_own_tower(name: str, weights: dict) -> None:
    model, image = loud(load_clip(weights["model"])), torch.randn(2, 3, 64, 64)
    layers = (0, -1) if name in VITS else (-1,)
    with torch.no_grad():
        expected = model.encode_image(image, normalize=True)
        features = CLIPBackbone(weights, out_indices=layers, project=False)(image)
        if name in VITS:
            found = model.visual.forward_intermediates(image, indices=[0, 2])
            levels = found["image_intermediates"]
        else:
            levels = [model.visual.trunk.forward_features(image)]
    assert torch.allclose(features.global_token, expected, atol=1e-5)
    for level, tokens in zip(features.local, levels, strict=True):
        assert torch.allclose(level, tokens, atol=1e-5)


def test_text_is_open_clips_own(weights: dict) -> None:
    model = load_clip(**weights)
    texts, config = ["a photo of a cat.", "sofa"], weights["model"]
    tokens = open_clip.SimpleTokenizer(context_length=config["text_cfg"]["context_length"])(texts)
    with torch.no_grad():
        expected = model.encode_text(tokens, normalize=True)
    assert torch.allclose(encode_texts(build_text_tower(model, config), texts), expected, atol=1e-5)
    with pytest.raises(ValueError, match=f"very .* {config['text_cfg']['context_length']} "):
        encode_texts(build_text_tower(model, config), ["cat", "very " * 80])


def of_one_token(visual: Any, token: Tensor) -> Tensor:
    """What a tower of open_clip makes of a single last token (1, 1, C)."""
    if not isinstance(visual, TimmModel):
        return visual._pool(token)[0] @ visual.proj
    trunk = visual.trunk
    if image_tower(visual).takes_prompts:
        return visual.head(trunk.forward_head(trunk.norm(token)))
    return visual.head(trunk.forward_head(token.transpose(1, 2)[..., None]))


@torch.no_grad()
def test_a_local_token_is_what_the_tower_makes_of_it_alone(weights: dict) -> None:
    visual = load_clip(**weights).visual
    token = torch.randn(1, 1, image_tower(visual).width)
    found = image_tower(visual).to_joint_space(token)
    assert torch.allclose(found[0], of_one_token(visual, token), atol=1e-5)


@only_vits
def test_prompts_are_not_rotated(name: str, weights: dict) -> None:
    """In whatever order they stand, they say the same: they have no place in the image."""
    torch.manual_seed(0)
    backbone = CLIPBackbone(weights, visual_prompts={"num_tokens": 3}).eval()
    image = torch.randn(1, 3, 64, 80)
    before = backbone(image)
    prompts = backbone.visual_prompts.embeddings
    prompts.data = prompts.data.flip(1)
    assert torch.allclose(backbone(image).global_token, before.global_token, atol=1e-5)
    prompts.data.zero_()
    assert not torch.allclose(backbone(image).global_token, before.global_token, atol=1e-4)


@only_vits
def test_stochastic_depth_and_recomputation(name: str, weights: dict) -> None:
    image = torch.randn(1, 3, 64, 64).expand(8, -1, -1, -1)
    options = dict(visual_prompts={"num_tokens": 2, "dropout": 0.0}, drop_path_rate=0.9)
    gradients = []
    for with_cp in (False, True):
        torch.manual_seed(0)
        backbone = CLIPBackbone(weights, with_cp=with_cp, **options).train()
        tokens = backbone(image).global_token
        assert not torch.allclose(tokens, tokens[:1].expand_as(tokens), atol=1e-4)
        tokens.square().mul(torch.arange(tokens.shape[1])).sum().backward()
        gradients.append(backbone.visual_prompts.embeddings.grad)
        assert all(p.grad is None for p in backbone.visual.parameters())
        tokens = backbone.eval()(image).global_token
        assert torch.allclose(tokens, tokens[:1].expand_as(tokens), atol=1e-5)
    assert gradients[0].any() and torch.allclose(gradients[0], gradients[1], rtol=1e-3, atol=1e-6)


def test_adapters_start_from_the_towers_own_alignment(name: str, weights: dict) -> None:
    tower = image_tower(load_clip(**weights).visual)
    if (kind := weights["model"]["vision_cfg"].get("timm_proj")) != "linear" and name not in VITS:
        with pytest.raises(ValueError, match="convnext_base_w" if kind else "MobileCLIP-B"):
            tower.linear_alignment()
        return
    norm, weight, bias = tower.linear_alignment()
    tokens = torch.randn(4, tower.width)
    if (pool := getattr(getattr(tower.visual, "trunk", None), "attn_pool", None)) is not None:
        pool.mlp = nn.Module()
        pool.mlp.forward = torch.zeros_like
    with torch.no_grad():
        normed = F.layer_norm(tokens, norm.normalized_shape, norm.weight, norm.bias, norm.eps)
        found = F.linear(normed, weight, bias)
        assert torch.allclose(found, tower.to_joint_space(tokens), atol=1e-5)


@pytest.mark.parametrize("name", FEATURE_MAPS, indirect=True)
def test_what_feature_maps_lack_is_refused(name: str, weights: dict) -> None:
    with pytest.raises(ValueError, match="visual_prompts=None"):
        CLIPBackbone(weights, visual_prompts={"num_tokens": 2})


@pytest.mark.parametrize("name", slow_but_for_one_of_each(ALL), indirect=True)
def test_a_run(name: str, weights: dict, tmp_path: Path) -> None:
    """Training, evaluation, resume, other classes, and no other weights."""
    write_images(tmp_path)
    changes: dict[str, Any] = {}
    if name in FEATURE_MAPS:
        changes = {"model.backbone.visual_prompts": None, "model.backbone.drop_path_rate": 0.0}

    def runner_of(clip: dict, iterations: int = 4, **options: Any) -> Runner:
        cfg = tiny_config(tmp_path, clip, train_cfg=dict(max_iters=iterations), **options)
        cfg.merge_from_dict(changes)
        return ZeroShotRunner.from_cfg(cfg)

    runner_of(weights, 2).train()
    runner = runner_of(weights, resume=True)
    model = runner.train()
    assert runner.iter == 4 and runner.message_hub.get_scalar("val/hIoU").current() >= 0
    learning = {n.split(".")[1] for n, p in model.backbone.named_parameters() if p.requires_grad}
    assert learning == ({"embeddings", "proj", "norm"} if name in VITS else set())
    set_classes(model, ["dog", "cat"])
    assert model.eval().predict(torch.randn(1, 3, 48, 80))[0].seg_logits.data.shape == (2, 48, 80)
    last = str(tmp_path / "run" / "iter_4.pth")
    with pytest.raises(ValueError, match="pretrained"):
        runner_of({**weights, "pretrained": None}, load_from=last).load_or_resume()


TAKES_LOCAL = ("ViT-B-16", "ViT-B-16-quickgelu", "EVA02-L-14", "EVA01-g-14", "MobileCLIP-B")


@pytest.mark.parametrize("name", TAKES_LOCAL, indirect=True)
def test_local_attention_sees_the_tokens_of_the_last_block(
    name: str, weights: dict, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With CLIP's own attention in its place, nothing changes."""
    images = torch.randn(2, 3, 64, 96)  # not the native grid
    with torch.no_grad():
        own = CLIPBackbone(weights)(images)
        for kind in ("naclip", "sclip", "kk"):
            local = CLIPBackbone(weights, local_attention=kind)(images)
            assert torch.equal(local.global_token, own.global_token)
            assert not torch.allclose(local.local[0], own.local[0], atol=1e-3)
        monkeypatch.setattr(
            towers,
            "local_attention",
            lambda _, *heads: F.scaled_dot_product_attention(*heads[:3]),
        )
        local = CLIPBackbone(weights, local_attention="sclip")(images)
        assert torch.allclose(local.local[0], own.local[0], atol=1e-5)


@pytest.mark.parametrize("name", sorted({*ALL} - {*TAKES_LOCAL, "MobileCLIP2-L-14"}), indirect=True)
def test_other_towers_refuse_local_attention(name: str, weights: dict) -> None:
    with pytest.raises(UserError, match="local_attention"):
        CLIPBackbone(weights, local_attention="naclip")
