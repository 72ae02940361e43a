from __future__ import annotations

from pathlib import Path

import numpy as np
import open_clip
import pytest
import torch
from mmseg.registry import MODELS

from mmseg_otseg.models import PrecomputedPrompts, TemplatePrompts, load_clip
from mmseg_otseg.models.text import build_text_tower, encode_texts
from mmseg_otseg.models.text.templates import OTSEG_6, OTSEG_8, resolve_templates

SPLIT = {"classes": ["cat", "potted plant", "tv monitor"], "unseen": ["tv monitor"]}


def test_embeddings_are_open_clips(clip: dict) -> None:
    prompts = TemplatePrompts(clip, SPLIT, templates=["a photo of a {}.", "small {}"])
    model = load_clip(**clip)
    texts = open_clip.tokenize(["a photo of a potted plant.", "small potted plant"])
    with torch.no_grad():
        expected = model.encode_text(texts, normalize=True)
    assert prompts().shape == (3, 2, 32)
    assert torch.allclose(prompts()[1], expected, atol=1e-6)


def test_custom_text_tower_is_read_too(clip_config: dict) -> None:
    model = open_clip.CustomTextCLIP(**clip_config).eval()
    tower = build_text_tower(model, clip_config)
    with torch.no_grad():
        expected = model.encode_text(open_clip.tokenize(["a cat"]), normalize=True)
    assert torch.allclose(encode_texts(tower, ["a cat"]), expected, atol=1e-6)


def test_text_tower_is_freed(clip: dict) -> None:
    prompts = TemplatePrompts(clip, SPLIT)
    assert not list(prompts.parameters()) and not list(prompts.children())
    assert set(prompts.state_dict()) == {"embeddings", "vocabulary"}


def test_templates_of_the_papers() -> None:
    assert len(OTSEG_6) == 6 and len(OTSEG_8) == 8 and OTSEG_8[:6] == OTSEG_6
    assert resolve_templates("otseg8")[-1] == "a background of a {}."
    assert len(set(resolve_templates("vild"))) == 15


def test_average_is_one_prompt_of_unit_length(clip: dict) -> None:
    apart = TemplatePrompts(clip, SPLIT, templates="vild")
    prompts = TemplatePrompts(clip, SPLIT, templates="vild", average=True)
    mean = apart().mean(1, keepdim=True)
    assert prompts.num_prompts == 1 and prompts().shape == (3, 1, 32)
    assert torch.allclose(prompts(), mean / mean.norm(dim=-1, keepdim=True), atol=1e-6)
    prompts.set_classes({"classes": ["dog"], "unseen": []})
    assert prompts().shape == (1, 1, 32)
    assert not torch.equal(prompts.vocabulary, TemplatePrompts(clip, SPLIT, "vild").vocabulary)


@pytest.mark.parametrize("templates", ["clip", [], ["no slot"], ["{} and {}"]])
def test_wrong_templates(templates: object, clip: dict) -> None:
    with pytest.raises(ValueError, match="template"):
        TemplatePrompts(clip, SPLIT, templates=templates)


def test_set_classes_keeps_shared_classes(clip: dict) -> None:
    prompts = TemplatePrompts(clip, SPLIT)
    cat = prompts()[0]
    prompts.set_classes({"classes": ["dog", "cat"], "unseen": []})
    assert prompts.split.classes == ("dog", "cat") and prompts().shape[:2] == (2, 6)
    assert torch.allclose(prompts()[1], cat, atol=1e-6)


def test_checkpoint_of_the_same_vocabulary_is_taken(clip: dict) -> None:
    saved = TemplatePrompts(clip, SPLIT).state_dict()
    saved["embeddings"] = torch.ones(3, 6, 32)
    prompts = TemplatePrompts(clip, SPLIT)
    prompts.load_state_dict(saved)
    assert torch.equal(prompts(), saved["embeddings"])


def test_checkpoint_of_another_vocabulary_is_left(clip: dict) -> None:
    other = TemplatePrompts(clip, {"classes": ["dog"], "unseen": []})
    prompts = TemplatePrompts(clip, SPLIT)
    before = prompts().clone()
    prompts.load_state_dict(other.state_dict(), strict=True)
    assert torch.equal(prompts(), before)


def test_precomputed(tmp_path: Path) -> None:
    array = np.random.default_rng(0).normal(size=(3, 2, 8))
    np.save(tmp_path / "t.npy", array)
    prompts = MODELS.build(
        {"type": "PrecomputedPrompts", "path": str(tmp_path / "t.npy"), "split": SPLIT, "clip": {}}
    )
    assert prompts.num_prompts == 2 and prompts.embed_dim == 8
    expected = array / np.linalg.norm(array, axis=-1, keepdims=True)
    assert np.allclose(prompts(), expected, atol=1e-6)
    assert prompts(torch.tensor([2])).shape == (1, 2, 8)


def test_one_prompt_per_class(tmp_path: Path) -> None:
    np.save(tmp_path / "t.npy", np.ones((3, 8), dtype=np.float16))
    assert PrecomputedPrompts(str(tmp_path / "t.npy"), SPLIT)().shape == (3, 1, 8)


def test_precomputed_rows_must_match_the_names(tmp_path: Path) -> None:
    np.save(tmp_path / "t.npy", np.ones((5, 2, 8)))
    with pytest.raises(ValueError, match="5 classes, but the vocabulary has 3"):
        PrecomputedPrompts(str(tmp_path / "t.npy"), SPLIT)


@pytest.mark.parametrize("array", [np.ones(3), np.ones((3, 2, 8), dtype=int), np.ones((0, 2, 8))])
def test_precomputed_shape(array: np.ndarray, tmp_path: Path) -> None:
    np.save(tmp_path / "t.npy", array)
    with pytest.raises(ValueError, match=r"shape \(K, N, D\)"):
        PrecomputedPrompts(str(tmp_path / "t.npy"), SPLIT)


def test_precomputed_file_errors(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"none\.npy"):
        PrecomputedPrompts(str(tmp_path / "none.npy"), SPLIT)
    np.save(tmp_path / "t.npy", np.array([{}], dtype=object), allow_pickle=True)
    with pytest.raises(ValueError, match="cannot read text embeddings"):
        PrecomputedPrompts(str(tmp_path / "t.npy"), SPLIT)
