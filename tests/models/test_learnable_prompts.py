from __future__ import annotations

from typing import Any

import open_clip
import pytest
import torch
from mmengine.runner.checkpoint import load_state_dict

from mmseg_otseg.models import LearnablePrompts, load_clip

NAMES = ["cat", "potted plant", "sofa"]
SPLIT = {"classes": NAMES, "unseen": ["sofa"]}


def build(clip: dict[str, Any], **options: Any) -> LearnablePrompts:
    torch.manual_seed(0)
    return LearnablePrompts(clip, SPLIT, **{"num_prompts": 2, "num_tokens": 4, **options})


@pytest.mark.parametrize("position", ["end", "middle", "front"])
def test_contexts_of_words_are_clips_own_text(position: str, clip: dict) -> None:
    """With real words as the context, CLIP's encoding of the sentence comes out."""
    prompts = build(
        clip, num_prompts=1, init_text="a photo of a", num_tokens=None, position=position
    )
    sentence = {
        "end": "a photo of a {}.",
        "middle": "a photo {} of a.",
        "front": "{} a photo of a.",
    }
    texts = open_clip.tokenize([sentence[position].format(name) for name in NAMES])
    with torch.no_grad():
        expected = load_clip(**clip).encode_text(texts, normalize=True)
    assert prompts.num_tokens == 4
    assert torch.allclose(prompts()[:, 0], expected, atol=1e-6)


def test_gradient_reaches_the_contexts_and_nothing_of_clip(clip: dict) -> None:
    prompts = build(clip).train()
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
    prompts = build(clip).eval()
    first = prompts()
    assert prompts() is first
    prompts.train().contexts.mul_(2)
    doubled = prompts.eval()()
    assert not torch.allclose(doubled, first, atol=1e-5)
    prompts.load_state_dict(build(clip).state_dict())
    assert torch.allclose(prompts(), first, atol=1e-6)
    assert prompts.double()().dtype == torch.float64
    assert prompts.float()().dtype == torch.float32
    prompts.set_classes({"classes": ["sofa", "dog", "cat", "bird"]})
    assert prompts().shape[0] == 4
    assert torch.allclose(prompts()[0], first[2], atol=1e-6)


def test_checkpoint_holds_the_contexts_alone(clip: dict) -> None:
    assert set(build(clip).state_dict()) == {
        "contexts",
        "tower.fingerprint",
        "tower.quick_gelu",
    }
    other = LearnablePrompts(clip, {"classes": ["dog"]}, num_prompts=2, num_tokens=4)
    other.load_state_dict(build(clip).state_dict(), strict=True)
    with pytest.raises(ValueError, match="pretrained"):
        build({**clip, "seed": 3}).load_state_dict(other.state_dict())


def test_contexts_per_class(clip: dict) -> None:
    prompts = build(clip, per_class=True)
    assert prompts.contexts.shape == (3, 2, 4, 32) and prompts.num_prompts == 2
    prompts.train()(torch.tensor([0, 1])).sum().backward()
    touched = prompts.contexts.grad.flatten(1).any(1)
    assert touched.tolist() == [True, True, False]
    with torch.no_grad():
        prompts.contexts[2] += 1
        sofa = prompts.eval()()[2]
        prompts.set_classes({"classes": ["dog", "sofa"]})
        assert torch.allclose(prompts()[1], sofa, atol=1e-6)
    assert torch.equal(prompts.contexts[0], prompts.init_contexts)
    with pytest.raises(ValueError, match="set_classes"):
        load_state_dict(build(clip, per_class=True), prompts.state_dict())
