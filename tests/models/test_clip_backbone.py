from __future__ import annotations

import pickle
from copy import deepcopy
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from mmengine.model import ExponentialMovingAverage
from mmengine.runner.activation_checkpointing import turn_on_activation_checkpointing
from torch import nn

from mmseg_otseg.models import CLIPBackbone, load_clip
from mmseg_otseg.models.clip import shared_clip
from tests.helpers.small_voc import build
from tests.helpers.tiny_clip import tiny_clip

pytestmark = pytest.mark.usefixtures("device")


def prompted(clip: dict[str, Any], **options: Any) -> CLIPBackbone:
    return CLIPBackbone(clip, visual_prompts={"num_tokens": 4}, **options)


def test_is_open_clips_own_tower(clip: dict) -> None:
    """At the native size global token and patches are what open_clip computes."""
    model = load_clip(**clip)
    model.visual.output_tokens = True
    image = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        pooled, tokens = model.visual(image)
    features = CLIPBackbone(clip)(image)
    assert torch.allclose(features.global_token, F.normalize(pooled, dim=-1), atol=1e-6)
    expected = (tokens @ model.visual.proj).transpose(1, 2).unflatten(2, (4, 4))
    assert torch.allclose(features.local[0], expected, atol=1e-5)


@pytest.mark.parametrize("size", [(64, 64), (96, 160), (50, 71), (16, 16), (129, 64)])
@pytest.mark.parametrize("prompts", [False, True])
def test_any_size(size: tuple[int, int], prompts: bool, clip: dict) -> None:
    backbone = prompted(clip) if prompts else CLIPBackbone(clip)
    features = backbone(torch.randn(1, 3, *size))
    grid = tuple(-(-side // 16) for side in size)
    assert features.local[0].shape == (1, 32, *grid)
    assert features.global_token.norm(dim=-1).item() == pytest.approx(1, abs=1e-5)


def test_clip_stays_frozen(clip: dict) -> None:
    backbone = prompted(clip, drop_path_rate=0.5).train()
    trainable = {name for name, p in backbone.named_parameters() if p.requires_grad}
    assert trainable and all(name.startswith("visual_prompts.") for name in trainable)
    assert not backbone.visual.training and backbone.training
    before = {name: value.clone() for name, value in backbone.visual.state_dict().items()}
    optimizer = torch.optim.AdamW([p for p in backbone.parameters() if p.requires_grad], lr=0.1)
    backbone(torch.randn(2, 3, 64, 64)).local[0].square().mean().backward()
    optimizer.step()
    assert all(torch.equal(value, before[n]) for n, value in backbone.visual.state_dict().items())
    assert all(p.grad is not None for p in backbone.visual_prompts.parameters())


def test_checkpoint_is_small(clip: dict) -> None:
    assert not any("clip.module" in name for name in prompted(clip).state_dict())
    full = prompted(clip, save_clip=True).state_dict()
    assert any("clip.module.conv1" in name for name in full)


@pytest.mark.parametrize("indices", [(3,), (-4,), (0, -3), ()])
def test_wrong_layers(indices: tuple[int, ...], clip: dict) -> None:
    with pytest.raises(ValueError, match="out_indices"):
        CLIPBackbone(clip, out_indices=indices)


@pytest.mark.parametrize("copy", [deepcopy, lambda model: pickle.loads(pickle.dumps(model))])
def test_a_copy_has_a_stochastic_depth_of_its_own(copy: Any, clip: dict) -> None:
    """As the teacher of a mean teacher needs it."""
    student = prompted(clip, drop_path_rate=0.9).train()
    student.visual_prompts.dropout.p = 0.0
    teacher = copy(student).eval()
    image = torch.randn(1, 3, 64, 64).expand(16, -1, -1, -1)
    tokens = teacher(image).global_token
    assert torch.allclose(tokens, tokens[:1].expand_as(tokens), atol=1e-5)
    tokens = teacher.train()(image).global_token
    student.eval()
    assert not torch.allclose(tokens, tokens[:1].expand_as(tokens), atol=1e-4)


def test_activation_checkpointing_never_trains_without_gradients(clip: dict) -> None:
    model = nn.ModuleDict({"backbone": prompted(clip)}).train()
    turn_on_activation_checkpointing(model, ["backbone"])
    image = torch.randn(1, 3, 64, 64)
    try:
        features = model["backbone"](image)
    except RuntimeError as error:
        assert "with_cp" in str(error)
    else:  # a torch whose checkpoints need no gradient of the input
        assert features.local[0].requires_grad
    with torch.no_grad():
        model.eval()["backbone"](image)


def test_an_average_follows_a_tower_of_another_resolution(clip: dict) -> None:
    """A checkpoint that brings a larger position embedding is loaded below mmengine's EMAHook."""
    larger = CLIPBackbone({"model": tiny_clip(image_size=96)}, save_clip=True)
    backbone = CLIPBackbone(clip)
    average = ExponentialMovingAverage(backbone)
    for model in (backbone, average.module):
        model.load_state_dict(larger.state_dict())
    average.update_parameters(backbone)
    average.update_parameters(backbone)
    image = torch.randn(1, 3, 96, 96)
    expected = larger(image).global_token
    assert torch.allclose(average.module(image).global_token, expected, atol=1e-5)


def test_a_backbone_over_the_same_clip_is_left_alone(clip: dict) -> None:
    """As the frozen teacher of a trained backbone needs it."""
    image = torch.randn(2, 3, 64, 64)
    with shared_clip():
        trained = prompted(clip, drop_path_rate=0.9).train()
        frozen = CLIPBackbone(clip).train()
    assert trained.visual is frozen.visual
    expected = CLIPBackbone(clip)(image)
    for features in (frozen(image), trained.plain_features(image)):
        assert torch.equal(features.global_token, expected.global_token)
        assert torch.equal(features.local[0], expected.local[0])
        assert not features.local[0].requires_grad


def test_extra_tokens_that_nothing_sees_change_nothing(clip: dict) -> None:
    class Extra(CLIPBackbone):
        def extra_tokens(self, tokens: Any, grid: Any) -> Any:
            size = tokens.shape[1] + self.num_prompts + 2
            mask = tokens.new_zeros(size, size)
            mask[:-2, -2:] = -torch.inf
            return torch.ones_like(tokens[:, :2]), mask

    torch.manual_seed(0)
    plain = prompted(clip, out_indices=(0, -1)).eval()
    torch.manual_seed(0)
    extra = Extra(clip, visual_prompts={"num_tokens": 4}, out_indices=(0, -1)).eval()
    image = torch.randn(2, 3, 64, 96)
    expected, found = plain(image), extra(image)
    assert expected.extra is None and found.extra.shape == (2, 2, 32)
    assert torch.allclose(found.global_token, expected.global_token, atol=1e-5)
    for level, wanted in zip(found.local, expected.local, strict=True):
        assert torch.allclose(level, wanted, atol=1e-5)


@pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning")
@pytest.mark.parametrize("name", ["otseg", "zegot", "zegclip"])
def test_models_can_be_traced(name: str) -> None:
    """As mmseg's get_flops.py does it: sizes are tensors then."""
    model, image = build(name).eval(), torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        traced = torch.jit.trace(model, image, check_trace=False, strict=False)
        expected = model(image)
        for found, wanted in zip(traced(image).values(), expected.values()):
            assert torch.allclose(found, wanted, atol=1e-5)
