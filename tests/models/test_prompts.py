from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import open_clip
import pytest
import torch
import torch.nn.functional as F
import yaml
from torch import Tensor

from mmseg_otseg.models import TemplatePrompts, load_clip
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
