"""The ViTs of every supported family."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import open_clip
import pytest
import torch
import torch.nn.functional as F
from open_clip.timm_model import TimmModel
from torch import Tensor, nn

from mmseg_otseg.inference import set_classes
from mmseg_otseg.models import CLIPBackbone, LearnablePrompts, load_clip, supported_models
from mmseg_otseg.models.clip.towers import image_tower
from mmseg_otseg.models.text import build_text_tower, encode_texts
from tests.helpers.otseg_run import otseg_runner
from tests.helpers.small_clips import (
    VITS,
    WIDTH,
    clip_of,
    loud,
    make_towers_small,
    slow_but_for_one_of_each,
)
from tests.helpers.tiny_run import write_images


@pytest.fixture(autouse=True)
def _small_towers(monkeypatch: pytest.MonkeyPatch) -> None:
    make_towers_small(monkeypatch)


@pytest.fixture(params=VITS)
def name(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture
def weights(name: str, tmp_path: Path) -> dict[str, Any]:
    """``clip`` with weights in a file of open_clip's own form."""
    clip = clip_of(name)
    model = loud(load_clip(**clip))
    torch.save({"state_dict": model.state_dict(), "epoch": 3}, tmp_path / "clip.pt")
    return {**clip, "pretrained": str(tmp_path / "clip.pt")}


def test_it_is_open_clips_own_tower(weights: dict) -> None:
    model = loud(load_clip(weights["model"]))
    image = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        expected = model.encode_image(image, normalize=True)
        features = CLIPBackbone(weights, out_indices=(0, -1), project=False)(image)
        levels = model.visual.forward_intermediates(image, indices=[0, 2])["image_intermediates"]
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


def of_tokens(visual: Any, tokens: Tensor) -> Tensor:
    """What a tower of open_clip makes of its last tokens."""
    if isinstance(visual, TimmModel):
        return visual.head(visual.trunk.forward_head(visual.trunk.norm(tokens)))
    return visual._pool(tokens)[0] @ visual.proj


def test_a_local_token_is_what_the_tower_makes_of_it_alone(weights: dict) -> None:
    visual, tokens = load_clip(**weights).visual, torch.randn(1, 1, WIDTH)
    with torch.no_grad():
        found = image_tower(visual).to_joint_space(tokens)
        assert torch.allclose(found[0], of_tokens(visual, tokens), atol=1e-5)


@pytest.mark.parametrize("size", [(96, 160), (50, 71), (16, 16)])
def test_any_size(size: tuple[int, int], weights: dict) -> None:
    backbone = CLIPBackbone(weights, visual_prompts={"num_tokens": 3})
    features = backbone(torch.randn(1, 3, *size))
    grid = tuple(-(-side // 16) for side in size)
    assert features.local[0].shape == (1, weights["model"]["embed_dim"], *grid)
    assert features.global_token.norm(dim=-1).item() == pytest.approx(1, abs=1e-5)


def test_the_tower_keeps_its_native_size(weights: dict) -> None:
    """Nothing of a call at another size stays in the tower."""
    backbone, image = CLIPBackbone(weights), torch.randn(1, 3, 64, 64)
    before = backbone(image).global_token
    with torch.inference_mode():
        backbone(torch.randn(1, 3, 96, 32))
    assert torch.equal(backbone(image).global_token, before)


def test_prompts_are_not_rotated(weights: dict) -> None:
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


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_half_precision(precision: str, weights: dict) -> None:
    torch.manual_seed(0)
    image, prompts = torch.randn(1, 3, 64, 80), {"num_tokens": 2, "dropout": 0.0}
    features = []
    for clip in (weights, {**weights, "precision": precision}):
        torch.manual_seed(0)
        features.append(CLIPBackbone(clip, visual_prompts=prompts)(image))
    full, half = features
    assert half.global_token.dtype == torch.float32
    assert F.cosine_similarity(full.global_token, half.global_token) > 0.99
    assert F.cosine_similarity(full.local[0], half.local[0]).mean() > 0.99


def test_stochastic_depth_and_recomputation(weights: dict) -> None:
    image = torch.randn(1, 3, 64, 64).expand(8, -1, -1, -1)
    gradients = []
    for with_cp in (False, True):
        torch.manual_seed(0)
        prompts = {"num_tokens": 2, "dropout": 0.0}
        backbone = CLIPBackbone(
            weights, visual_prompts=prompts, drop_path_rate=0.9, with_cp=with_cp
        ).train()
        tokens = backbone(image).global_token
        assert not torch.allclose(tokens, tokens[:1].expand_as(tokens), atol=1e-4)
        tokens.square().mul(torch.arange(tokens.shape[1])).sum().backward()
        gradients.append(backbone.visual_prompts.embeddings.grad)
        assert all(p.grad is None for p in backbone.visual.parameters())
    assert gradients[0].any() and torch.allclose(gradients[0], gradients[1], rtol=1e-3, atol=1e-6)


def test_adapters_start_from_the_towers_own_alignment(weights: dict) -> None:
    norm, weight, bias = image_tower(load_clip(**weights).visual).linear_alignment()
    tower, tokens = image_tower(load_clip(**weights).visual), torch.randn(4, WIDTH)
    pool = getattr(getattr(tower.visual, "trunk", None), "attn_pool", None)
    if pool is not None:
        pool.mlp = nn.Module()
        pool.mlp.forward = torch.zeros_like
    with torch.no_grad():
        found = F.linear(norm(tokens), weight, bias)
        assert torch.allclose(found, tower.to_joint_space(tokens), atol=1e-5)


@pytest.mark.parametrize("name", slow_but_for_one_of_each(VITS), indirect=True)
def test_a_run(name: str, weights: dict, tmp_path: Path) -> None:
    """Training, evaluation, resume, other classes, and no other weights."""
    write_images(tmp_path)
    otseg_runner(tmp_path, weights, train_cfg=dict(max_iters=2)).train()
    runner = otseg_runner(tmp_path, weights, resume=True, train_cfg=dict(max_iters=4))
    model = runner.train()
    assert runner.iter == 4 and runner.message_hub.get_scalar("val/hIoU").current() >= 0
    learning = {n.split(".")[1] for n, p in model.backbone.named_parameters() if p.requires_grad}
    assert learning == {"embeddings", "proj", "norm"}
    trainable = sum(p.numel() for p in model.backbone.parameters() if p.requires_grad)
    assert trainable == 3 * 2 * WIDTH + WIDTH * WIDTH + WIDTH + 2 * WIDTH
    set_classes(model, ["dog", "cat"])
    assert model.eval().predict(torch.randn(1, 3, 48, 80))[0].seg_logits.data.shape == (2, 48, 80)
    other = {**weights, "pretrained": None}
    with pytest.raises(ValueError, match="pretrained"):
        otseg_runner(
            tmp_path, other, load_from=str(tmp_path / "run" / "iter_4.pth")
        ).load_or_resume()


def test_learnable_prompts_need_a_causal_tower(name: str) -> None:
    clip, split = clip_of(name), {"classes": ["cat", "dog"]}
    if not VITS[name].get("no_causal_mask"):
        assert LearnablePrompts(clip, split)().shape == (2, 6, 32)
    else:
        with pytest.raises(ValueError, match="TemplatePrompts"):
            LearnablePrompts(clip, split)


def test_all_of_them_are_listed() -> None:
    names = supported_models()
    assert {*VITS, "EVA02-L-14-336", "ViT-SO400M-16-SigLIP2-384", "MobileCLIP2-B"} <= {*names}
