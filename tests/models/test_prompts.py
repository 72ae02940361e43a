"""Embeddings of class names: of sentences, of learned contexts, of a file."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import open_clip
import pytest
import torch
import torch.nn.functional as F
import yaml
from mmengine.runner.checkpoint import load_state_dict
from mmseg.registry import MODELS
from torch import Tensor

from mmseg_otseg.models import LearnablePrompts, PrecomputedPrompts, TemplatePrompts, load_clip
from mmseg_otseg.models.text import TextTower, encode_texts

SPLIT = {"classes": ["cat", "potted plant", "tv monitor"], "unseen": ["tv monitor"]}


def test_embeddings_are_open_clips(clip: dict) -> None:
    prompts = TemplatePrompts(clip, SPLIT, templates=["a photo of a {}.", "small {}"])
    model = load_clip(**clip)
    texts = open_clip.tokenize(["a photo of a potted plant.", "small potted plant"])
    with torch.no_grad():
        expected = model.encode_text(texts, normalize=True)
    assert prompts().shape == (3, 2, 32)
    assert torch.allclose(prompts()[1], expected, atol=1e-6)


def test_average_is_one_prompt_of_unit_length(clip: dict) -> None:
    apart = TemplatePrompts(clip, SPLIT, templates="vild")
    prompts = TemplatePrompts(clip, SPLIT, templates="vild", average=True)
    mean = apart().mean(1, keepdim=True)
    assert prompts.num_prompts == 1 and prompts().shape == (3, 1, 32)
    assert torch.allclose(prompts(), mean / mean.norm(dim=-1, keepdim=True), atol=1e-6)
    prompts.set_classes({"classes": ["dog"], "unseen": []})
    assert prompts().shape == (1, 1, 32)
    assert not torch.equal(
        prompts.vocabulary_digest, TemplatePrompts(clip, SPLIT, "vild").vocabulary_digest
    )


def test_embeddings_are_kept_on_disk(
    clip: dict, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    encoded: list[int] = []

    def count(tower: TextTower, texts: Sequence[str]) -> Tensor:
        encoded.append(len(texts))
        return encode_texts(tower, texts)

    monkeypatch.setattr("mmseg_otseg.models.text.template_prompts.encode_texts", count)
    first = TemplatePrompts(clip, SPLIT, "vild", average=True)()
    assert torch.equal(TemplatePrompts(clip, SPLIT, "vild", average=True)(), first)
    assert encoded == [45]
    for other in (dict(clip, seed=1), clip):  # another CLIP; prompts of which none is a mean
        TemplatePrompts(other, SPLIT, "vild", average=other is not clip)
    assert encoded == [45] * 3
    files = [*tmp_path.rglob("*.safetensors")]
    assert len(files) == 3 and len([*tmp_path.rglob("*.*")]) == 3
    for file in files:
        file.write_bytes(file.read_bytes()[:-1])
    assert torch.equal(TemplatePrompts(clip, SPLIT, "vild", average=True)(), first)
    assert len(encoded) == 4


def test_many_texts_are_encoded_in_their_order(
    clip: dict, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture
) -> None:
    monkeypatch.setattr("mmseg_otseg.models.text.text_tower.BATCH", 3)
    monkeypatch.setattr("mmseg_otseg.models.text.text_tower.MANY", 7)
    tower = TemplatePrompts(clip, SPLIT).build_tower()
    texts = ["a photo of a cat.", "cat", "a b", "sofa", "a potted plant here.", "a", "b"]
    found = encode_texts(tower, texts)
    assert "class names" in capfd.readouterr().err
    for text, embedding in zip(texts, found):
        assert torch.allclose(tower(tower.tokenize([text]))[0], embedding, atol=1e-6)


@pytest.mark.parametrize("kind", ["", ".json", ".yaml"])
def test_sentences_of_each_names_own(kind: str, clip: dict, tmp_path: Path) -> None:
    own = {"sofa": ["a soft seat.", "a {} by a wall."], "couch": ["a couch."], "tv": ["a screen."]}
    file = tmp_path / f"sentences{kind}"
    file.write_text(json.dumps(own) if kind == ".json" else yaml.safe_dump(own))
    given: Any = str(file) if kind else own
    prompts = TemplatePrompts(clip, {"classes": ["sofa | couch", "tv"]}, given, average=True)
    texts = open_clip.tokenize(["a soft seat.", "a sofa by a wall.", "a couch.", "a screen."])
    with torch.no_grad():
        first, second, *others = load_clip(**clip).encode_text(texts, normalize=True)
    expected = torch.stack([F.normalize(first + second, dim=0), *others])
    assert torch.allclose(prompts()[:, 0], expected, atol=1e-6)
    with pytest.raises(ValueError, match="dog"):
        prompts.set_classes({"classes": ["dog"]})
    with pytest.raises(ValueError, match="average"):
        TemplatePrompts(clip, {"classes": ["sofa"]}, given)


def test_wrong_templates_and_sentences(clip: dict, tmp_path: Path) -> None:
    for templates in ("clip", [], ["no slot"], ["{} and {}"]):
        with pytest.raises(ValueError, match="template"):
            TemplatePrompts(clip, SPLIT, templates=templates)
    for content in ("[1, 2]", "sofa: 3", "sofa: [", "{}"):
        (tmp_path / "sentences.yaml").write_text(content)
        with pytest.raises(ValueError, match="sentences"):
            TemplatePrompts(clip, SPLIT, str(tmp_path / "sentences.yaml"), average=True)


@pytest.mark.parametrize("key", ["vocabulary_digest", "vocabulary"])  # now, and in version 0.2
def test_checkpoint_of_the_same_vocabulary_is_taken(key: str, clip: dict) -> None:
    saved = TemplatePrompts(clip, SPLIT).state_dict()
    assert set(saved) == {"embeddings", "vocabulary_digest", "fingerprint"}
    saved["embeddings"] = torch.ones(3, 6, 32)
    saved[key] = saved.pop("vocabulary_digest")
    prompts = TemplatePrompts(clip, SPLIT)
    prompts.load_state_dict(saved, strict=True)
    assert torch.equal(prompts(), saved["embeddings"])
    other = TemplatePrompts(clip, {"classes": ["dog"], "unseen": []})
    before = other().clone()
    other.load_state_dict(saved, strict=True)  # its own vocabulary stays
    assert torch.equal(other(), before)


def test_text_of_another_clip_is_refused(clip: dict) -> None:
    """With other names the model's own text would be used, which is another CLIP's."""
    state = TemplatePrompts(clip, SPLIT).state_dict()
    for other in ({**clip, "seed": 3}, {**clip, "quick_gelu": True}):
        with pytest.raises(ValueError, match="pretrained"):
            TemplatePrompts(other, {"classes": ["dog"]}).load_state_dict(state)


def learnable(clip: dict[str, Any], **options: Any) -> LearnablePrompts:
    torch.manual_seed(0)
    return LearnablePrompts(clip, SPLIT, **{"num_prompts": 2, "num_tokens": 4, **options})


@pytest.mark.parametrize("position", ["end", "middle", "front"])
def test_contexts_of_words_are_clips_own_text(position: str, clip: dict) -> None:
    """With real words as the context, CLIP's encoding of the sentence comes out."""
    prompts = learnable(
        clip, num_prompts=1, init_text="a photo of a", num_tokens=None, position=position
    )
    sentence = {
        "end": "a photo of a {}.",
        "middle": "a photo {} of a.",
        "front": "{} a photo of a.",
    }
    texts = open_clip.tokenize([sentence[position].format(name) for name in SPLIT["classes"]])
    with torch.no_grad():
        expected = load_clip(**clip).encode_text(texts, normalize=True)
    assert prompts.num_tokens == 4
    assert torch.allclose(prompts()[:, 0], expected, atol=1e-6)


def test_gradient_reaches_the_contexts_and_nothing_of_clip(clip: dict) -> None:
    prompts = learnable(clip).train()
    tower = {name: value.clone() for name, value in prompts.text_tower.state_dict().items()}
    optimizer = torch.optim.AdamW([p for p in prompts.parameters() if p.requires_grad], lr=0.1)
    before = prompts.contexts.detach().clone()
    prompts(torch.tensor([0, 1]))[..., :3].sum().backward()
    assert (prompts.contexts.grad.flatten(1).abs().sum(1) > 0).all()
    optimizer.step()
    assert not torch.equal(prompts.contexts, before)
    assert [n for n, p in prompts.named_parameters() if p.requires_grad] == ["contexts"]
    assert all(p.grad is None for p in prompts.text_tower.parameters())
    for name, value in prompts.text_tower.state_dict().items():
        assert torch.equal(value, tower[name]), name


@torch.no_grad()
def test_what_was_encoded_is_forgotten_when_it_no_longer_holds(clip: dict) -> None:
    prompts = learnable(clip).eval()
    first = prompts()
    assert prompts() is first
    prompts.train().contexts.mul_(2)
    doubled = prompts.eval()()
    assert not torch.allclose(doubled, first, atol=1e-5)
    prompts.load_state_dict(learnable(clip).state_dict())
    assert torch.allclose(prompts(), first, atol=1e-6)
    assert prompts.double()().dtype == torch.float64
    assert prompts.float()().dtype == torch.float32
    prompts.set_classes({"classes": ["tv monitor", "dog", "cat", "bird"]})
    assert prompts().shape[0] == 4
    assert torch.allclose(prompts()[0], first[2], atol=1e-6)


def test_checkpoint_holds_the_contexts_alone(clip: dict) -> None:
    assert set(learnable(clip).state_dict()) == {
        "contexts",
        "tower.fingerprint",
        "tower.quick_gelu",
    }
    other = LearnablePrompts(clip, {"classes": ["dog"]}, num_prompts=2, num_tokens=4)
    other.load_state_dict(learnable(clip).state_dict(), strict=True)
    with pytest.raises(ValueError, match="pretrained"):
        learnable({**clip, "seed": 3}).load_state_dict(other.state_dict())


def test_contexts_per_class(clip: dict) -> None:
    prompts = learnable(clip, per_class=True)
    assert prompts.contexts.shape == (3, 2, 4, 32) and prompts.num_prompts == 2
    prompts.train()(torch.tensor([0, 1])).sum().backward()
    touched = prompts.contexts.grad.flatten(1).any(1)
    assert touched.tolist() == [True, True, False]
    with torch.no_grad():
        prompts.contexts[2] += 1
        last = prompts.eval()()[2]
        prompts.set_classes({"classes": ["dog", "tv monitor"]})
        assert torch.allclose(prompts()[1], last, atol=1e-6)
    assert torch.equal(prompts.contexts[0], prompts.init_contexts)
    with pytest.raises(ValueError, match="set_classes"):
        load_state_dict(learnable(clip, per_class=True), prompts.state_dict())


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


def test_rows_follow_their_names(tmp_path: Path) -> None:
    np.save(tmp_path / "t.npy", np.eye(3, 8))
    prompts = PrecomputedPrompts(str(tmp_path / "t.npy"), SPLIT)
    prompts.set_classes({"classes": ["tv monitor", "cat"]})
    assert prompts()[:, 0].argmax(-1).tolist() == [2, 0]
    with pytest.raises(ValueError, match=r"t\.npy .*dog:"):
        prompts.set_classes({"classes": ["cat", "dog", "tv monitor"]})
    assert prompts.split.classes == ("tv monitor", "cat")


@pytest.mark.parametrize("array", [np.ones((5, 2, 8)), np.ones(3), np.zeros((3, 2, 8))])
def test_arrays_that_do_not_fit(array: np.ndarray, tmp_path: Path) -> None:
    np.save(tmp_path / "t.npy", array)
    with pytest.raises(ValueError, match=r"t\.npy "):
        PrecomputedPrompts(str(tmp_path / "t.npy"), SPLIT)
