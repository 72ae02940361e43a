from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from mmseg_otseg.models import CLIPBackbone, DLFANeck
from mmseg_otseg.structures import CLIPFeatures

pytestmark = pytest.mark.usefixtures("device")

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
