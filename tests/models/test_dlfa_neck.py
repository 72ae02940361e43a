from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from mmseg_otseg.models import CLIPBackbone, DLFANeck
from mmseg_otseg.models.necks import RelationshipDescriptor
from mmseg_otseg.structures import CLIPFeatures

pytestmark = pytest.mark.usefixtures("device")

SPLIT = {"classes": ["cat", "dog", "sofa"], "unseen": ["dog"]}
TEXT = {"type": "TemplatePrompts", "split": SPLIT}


def build(clip: dict[str, Any], **options: Any) -> DLFANeck:
    return DLFANeck(clip, TEXT, **options)


def features(levels: int = 1, width: int = 32) -> CLIPFeatures:
    local = tuple(torch.randn(2, width, 3, 4) for _ in range(levels))
    return CLIPFeatures(local, F.normalize(torch.randn(2, 32), dim=-1))


def test_descriptor_is_the_linear_of_the_paper() -> None:
    descriptor = RelationshipDescriptor(8)
    text, token = torch.randn(3, 2, 8), torch.randn(4, 8)
    expanded = text.expand(4, -1, -1, -1)
    product = expanded * token[:, None, None]
    expected = descriptor.linear(torch.cat([product, expanded], dim=-1))
    assert torch.allclose(descriptor(text, token), expected, atol=1e-6)


def test_identity_init(clip: dict) -> None:
    neck = build(clip, identity_init=True).eval()
    aligned = neck(features())
    assert torch.allclose(aligned.queries, neck.text().expand(2, -1, -1, -1), atol=1e-6)


def test_training_sees_the_seen_classes_only(clip: dict) -> None:
    neck = build(clip).train()
    aligned = neck(features())
    assert aligned.queries.shape == (2, 2, 6, 32)
    assert aligned.classes.tolist() == [0, 2] and aligned.seen.all()
    aligned = neck.eval()(features())
    assert aligned.queries.shape == (2, 3, 6, 32)
    assert aligned.seen.tolist() == [True, False, True]


def test_transductive_training_sees_all_classes(clip: dict) -> None:
    for pseudo_labels, unseen in ((False, []), (True, [1])):
        neck = build(clip, train_classes="all", pseudo_labels=pseudo_labels).train()
        aligned = neck(features())
        assert aligned.classes.tolist() == [0, 1, 2]
        assert aligned.seen.tolist() == [True, False, True]
        assert aligned.unseen.tolist() == unseen


def test_without_descriptor_queries_are_the_text(clip: dict) -> None:
    neck = build(clip, relationship_descriptor=False).eval()
    assert torch.equal(neck(features()).queries[1], neck.text())
    assert not list(neck.parameters())


def test_untouched_adapters_are_clips_own_alignment(clip: dict) -> None:
    image = torch.randn(2, 3, 64, 64)
    own = build(clip)(CLIPBackbone(clip, out_indices=(0, -1))(image))
    adapted = build(clip, adapters=2)(CLIPBackbone(clip, (0, -1), project=False)(image))
    for level, expected in zip(adapted.pixels, own.pixels, strict=True):
        assert torch.allclose(level, expected, atol=1e-5)


def test_mismatches_are_named(clip: dict) -> None:
    with pytest.raises(ValueError, match=r" 3 adapters.* 2"):
        build(clip, adapters=3)(features(2, width=48))
    with pytest.raises(ValueError, match=r" 48,.* 32"):
        build(clip)(features(1, width=48))
    with pytest.raises(ValueError, match="train_classes"):
        build(clip, train_classes="unseen")


def test_text_of_another_width_is_named_at_once(clip: dict, tmp_path: Path) -> None:
    np.save(tmp_path / "text.npy", np.ones((3, 2, 16)))
    text = {"type": "PrecomputedPrompts", "path": str(tmp_path / "text.npy"), "split": SPLIT}
    with pytest.raises(ValueError, match=r" 16,.* 32"):
        DLFANeck(clip, text)


def test_training_without_a_seen_class_is_an_error(clip: dict) -> None:
    neck = build(clip)
    neck.set_classes(["dog", "horse"])
    assert neck.eval()(features()).queries.shape[1] == 2
    with pytest.raises(ValueError, match="dog, horse"):
        neck.train()(features())
