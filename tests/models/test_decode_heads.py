"""The heads, their decoders, and the bias that a checkpoint brings."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from mmengine.structures import PixelData
from mmseg.registry import MODELS
from mmseg.structures import SegDataSample
from torch import Tensor

from mmseg_otseg.errors import UserError
from mmseg_otseg.models import MPSAHead, load_clip
from mmseg_otseg.models.decode_heads import MPSADecoder, MultiHeadDecoder
from mmseg_otseg.ops import (
    multi_prompt_plan,
    pixel_prompt_similarity,
    transport_score,
)
from mmseg_otseg.structures import AlignedFeatures
from tests.helpers.small_configs import CLIP, small

pytestmark = pytest.mark.usefixtures("device")


def inputs(prompts: int = 3, width: int = 16) -> tuple[Tensor, Tensor]:
    generator = torch.Generator(torch.get_default_device()).manual_seed(0)
    queries = torch.randn(2, 4, prompts, width, generator=generator)
    patches = F.normalize(torch.randn(2, 20, width, generator=generator), dim=-1)
    return queries, patches


def test_strongly_negative_maps_gate_to_zero_with_finite_gradients() -> None:
    queries, patches = inputs()
    decoder = MPSADecoder(16).eval()
    decoder.layers[0].attention.forward = lambda q, p: (
        torch.full((2, 4, 20), -500.0),
        torch.full((2, 4, 3, 20), 1 / 60),
    )
    result = decoder(queries, patches)
    result.sum().backward()
    assert not result.any()
    assert all(p.grad is None or p.grad.isfinite().all() for p in decoder.parameters())


# The head -----------------------------------------------------------------------------------------


def features(seen: tuple[bool, ...] = (True, False, True), levels: int = 1) -> AlignedFeatures:
    patches = tuple(F.normalize(torch.randn(2, 16, 3, 5), dim=1) for _ in range(levels))
    queries = torch.randn(2, len(seen), 2, 16)
    known = torch.tensor(seen)
    unseen = (~known).nonzero()[:, 0]
    return AlignedFeatures(patches, queries, torch.arange(len(seen)), known, unseen)


def head(num_classes: int = 3, **options: Any) -> MPSAHead:
    return MPSAHead(num_classes=num_classes, embed_dim=16, **options)


def test_levels_are_averaged_with_learned_weights() -> None:
    model, inputs = head(num_levels=2, decoder_layers=0, predict_from="score"), features(levels=2)
    single = head(decoder_layers=0, predict_from="score")
    maps = [
        single(AlignedFeatures((level,), inputs.queries, inputs.classes, inputs.seen))["score"]
        for level in inputs.pixels
    ]
    assert torch.allclose(model(inputs)["score"], (maps[0] + maps[1]) / 2, atol=1e-6)
    model.level_logits.data[:] = torch.tensor([0.0, 50.0])
    assert torch.allclose(model(inputs)["score"], maps[1], atol=1e-6)
    model(inputs)["score"].square().sum().backward()
    assert model.level_logits.grad is not None


@pytest.mark.parametrize(
    ("count", "seen", "unseen", "ignored", "unlabeled"),
    [(4, [0, 2], [1, 3], 255, 254), (300, [0, 254, 299], [*range(1, 100), 255], 65535, 65536)],
)
def test_pseudo_labels_only_on_unlabeled_pixels_and_of_unseen_classes(
    monkeypatch: pytest.MonkeyPatch,
    count: int,
    seen: list[int],
    unseen: list[int],
    ignored: int,
    unlabeled: int,
) -> None:
    model, inputs = head(count), features(tuple(k not in unseen for k in range(count)))
    labels = torch.tensor(seen)[torch.randint(0, len(seen), (2, 8, 8))]
    labels[:, :4, :4] = unlabeled
    labels[:, 7] = ignored
    seen_targets: list[torch.Tensor] = []

    def record(logits: torch.Tensor, target: torch.Tensor, *_: Any) -> dict[str, torch.Tensor]:
        seen_targets.append(target)
        return {"loss": logits.sum()}

    monkeypatch.setattr(model, "loss_decode", torch.nn.Identity())
    monkeypatch.setattr(model.loss_decode, "forward", record)
    samples = [SegDataSample(gt_sem_seg=PixelData(data=label[None])) for label in labels]
    model.eval().loss(inputs, samples)
    target, pseudo = seen_targets[0], labels == unlabeled
    maps = torch.stack([*model(inputs).values()]).mean(0)[:, unseen]
    best = F.interpolate(maps, (8, 8), mode="bilinear").argmax(1)
    assert torch.equal(target[pseudo], torch.tensor(unseen)[best][pseudo])
    assert torch.equal(target[~pseudo], labels[~pseudo])


@pytest.mark.parametrize("transport", ["sinkhorn", "softmax"])
def test_the_plan_is_the_one_behind_the_score_map(transport: str) -> None:
    model, inputs = head(transport=transport).eval(), features()
    plan = model.plan(inputs)
    assert plan.shape == (2, 3, 2, 3, 5)
    torch.testing.assert_close(plan.sum((2, 3, 4)), torch.ones(2, 3))
    cosine = torch.einsum("bdhw,bknd->bknhw", inputs.pixels[0], F.normalize(inputs.queries, dim=-1))
    expected = (plan * cosine).sum(2) * 2 * 15
    torch.testing.assert_close(model(inputs)["score"], expected, atol=1e-5, rtol=1e-4)


def test_untouched_zegot_is_clips_own_similarity_through_mps(tmp_path: Path) -> None:
    model = MODELS.build(small("zegot/voc_512.py", tmp_path).model).eval()
    image = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        model.decode_head.level_logits.copy_(torch.tensor([-100.0, -100, 0]))  # the last level
        score = model.decode_head(model.extract_feat(image))["score"]
        clip = load_clip(**CLIP)
        clip.visual.output_tokens = True
        _, tokens = clip.visual(image)
        patches = F.normalize(tokens @ clip.visual.proj, dim=-1)
        text = model.neck.text()[None].expand(2, -1, -1, -1)
        similarity = pixel_prompt_similarity(patches, text)
        expected = transport_score(similarity, multi_prompt_plan(similarity))
    assert torch.allclose(score.flatten(2), expected, atol=1e-4)


def test_prompts_of_a_class_are_decoded_alone_and_averaged() -> None:
    decoder = MultiHeadDecoder(16, num_heads=4).double().eval()
    queries, patches = torch.randn(2, 3, 5, 16).double(), torch.randn(2, 10, 16).double()
    alone = [decoder(prompt[:, :, None], patches) for prompt in queries.unbind(2)]
    assert torch.allclose(decoder(queries, patches), sum(alone) / 5, atol=1e-12)


def test_dropout_reaches_the_attention_in_training_only() -> None:
    layer = MultiHeadDecoder(16, num_heads=4, dropout=0.5).layers[0]
    queries, patches = torch.randn(1, 2, 1, 16), torch.randn(1, 50, 16)
    for quiet in (layer.dropout, layer.feed_forward):  # all other dropout
        quiet.eval()
    assert not torch.equal(layer(queries, patches), layer(queries, patches))
    layer.eval()
    assert torch.equal(layer(queries, patches), layer(queries, patches))


def test_a_decoder_refuses_the_weights_of_another_kind() -> None:
    ours, other = MPSADecoder(16), MultiHeadDecoder(16)
    ours.load_state_dict(dict(other.named_parameters()))  # of a file that does not say
    with pytest.raises(ValueError, match=r"'multi-head attention'.*Sinkhorn"):
        ours.load_state_dict(other.state_dict())


# A calibrated seen-class bias ---------------------------------------------------------------------


def state(**biases: float) -> dict[str, torch.Tensor]:
    """Weights of a head with calibrated biases by the kind of prediction."""
    stored = {f"calibrated_seen_bias.{kind}": torch.tensor(bias) for kind, bias in biases.items()}
    return {**head().state_dict(), **stored}


def test_comes_with_the_checkpoint_and_ends_with_training(logged: list[str]) -> None:
    model = head().eval()
    model.load_state_dict(state(ensemble=0.25), strict=True)
    assert model.seen_bias == 0.25 and " 0.25, calibrated" in "".join(logged)
    model.load_state_dict(state())
    assert model.seen_bias == 0.1
    model.load_state_dict(state(ensemble=0.25))
    model.train()
    assert model.seen_bias == 0.1 and " 0.1." in "".join(logged)
    assert not any("calibrated" in key for key in model.state_dict())


def test_the_configs_word_is_the_last(logged: list[str]) -> None:
    model = head(seen_bias=0.0).eval()
    model.load_state_dict(state(ensemble=0.25))
    assert model.seen_bias == 0 and re.search(r" 0, .* 0\.25", "".join(logged))


def test_holds_for_the_prediction_it_was_calibrated_for(logged: list[str]) -> None:
    model = head(predict_from="decoder").eval()
    model.load_state_dict(state(ensemble=0.25))
    assert model.seen_bias == 0.1 and " 0.25 for ensemble" in "".join(logged)
    model.load_state_dict(state(ensemble=0.25, decoder=0.5))
    assert model.seen_bias == 0.5


@pytest.mark.parametrize(
    ("options", "message"),
    [({"transport": "softmx"}, "softmax.*'softmx'"), ({"epsilon": 0}, "epsilon.* 0")],
)
def test_mistyped_settings_are_the_users(options: dict, message: str) -> None:
    with pytest.raises(UserError, match=message):
        head(**options)(features())
