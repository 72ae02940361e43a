"""CLIP's features of images, and how they meet the text."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from mmseg_otseg.models import CLIPBackbone, DLFANeck
from mmseg_otseg.models.clip import shared_clip
from mmseg_otseg.structures import CLIPFeatures

pytestmark = pytest.mark.usefixtures("device")


def prompted(clip: dict[str, Any], **options: Any) -> CLIPBackbone:
    return CLIPBackbone(clip, visual_prompts={"num_tokens": 4}, **options)


@pytest.mark.parametrize("size", [(96, 160), (50, 71), (16, 16)])
def test_any_size(size: tuple[int, int], clip: dict) -> None:
    features = prompted(clip)(torch.randn(1, 3, *size))
    grid = tuple(-(-side // 16) for side in size)
    assert features.local[0].shape == (1, 32, *grid)
    assert features.global_token.norm(dim=-1).item() == pytest.approx(1, abs=1e-5)


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


SPLIT = {"classes": ["cat", "dog", "sofa"], "unseen": ["dog"]}
TEXT = {"type": "TemplatePrompts", "split": SPLIT}


def build(clip: dict[str, Any], **options: Any) -> DLFANeck:
    return DLFANeck(clip, TEXT, **options)


def features(levels: int = 1, width: int = 32) -> CLIPFeatures:
    local = tuple(torch.randn(2, width, 3, 4) for _ in range(levels))
    return CLIPFeatures(local, F.normalize(torch.randn(2, 32), dim=-1))


@pytest.mark.parametrize(
    ("train_classes", "classes", "unseen"),
    [("seen", [0, 2], None), ("all", [0, 1, 2], None), ("pseudo", [0, 1, 2], [1])],
)
def test_classes_in_training(
    train_classes: str, classes: list[int], unseen: list[int] | None, clip: dict
) -> None:
    neck = build(clip, train_classes=train_classes).train()
    aligned = neck(features())
    assert aligned.queries.shape == (2, len(classes), 6, 32)
    assert aligned.classes.tolist() == classes
    assert aligned.seen.tolist() == [index != 1 for index in classes]
    assert (None if aligned.unseen is None else aligned.unseen.tolist()) == unseen
    aligned = neck.eval()(features())
    assert aligned.queries.shape == (2, 3, 6, 32)
    assert aligned.seen.tolist() == [True, False, True]


def test_untouched_adapters_are_clips_own_alignment(clip: dict) -> None:
    image = torch.randn(2, 3, 64, 64)
    own = build(clip)(CLIPBackbone(clip, out_indices=(0, -1))(image))
    adapted = build(clip, adapters=2)(CLIPBackbone(clip, (0, -1), project=False)(image))
    for level, expected in zip(adapted.pixels, own.pixels, strict=True):
        assert torch.allclose(level, expected, atol=1e-5)


def test_text_of_another_width_is_named_at_once(clip: dict, tmp_path: Path) -> None:
    np.save(tmp_path / "text.npy", np.ones((3, 2, 16)))
    text = {"type": "PrecomputedPrompts", "path": str(tmp_path / "text.npy"), "split": SPLIT}
    with pytest.raises(ValueError, match=r" 16,.* 32"):
        DLFANeck(clip, text)
