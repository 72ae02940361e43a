from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from mmengine.structures import PixelData
from mmseg.structures import SegDataSample

from mmseg_otseg.models import MPSAHead
from mmseg_otseg.structures import UNLABELED, AlignedFeatures

pytestmark = pytest.mark.usefixtures("device")


def features(
    seen: tuple[bool, ...] = (True, False, True),
    prompts: int = 2,
    levels: int = 1,
    classes: tuple[int, ...] | None = None,
    batch: int = 2,
) -> AlignedFeatures:
    pixels = tuple(
        F.normalize(torch.randn(batch, 16, 3, 5), dim=1).requires_grad_() for _ in range(levels)
    )
    indices = torch.tensor(classes if classes is not None else range(len(seen)))
    queries = torch.randn(batch, len(seen), prompts, 16)
    return AlignedFeatures(pixels, queries, indices, torch.tensor(seen))


def samples(labels: torch.Tensor) -> list[SegDataSample]:
    return [SegDataSample(gt_sem_seg=PixelData(data=label[None])) for label in labels]


def head(num_classes: int = 3, **options: Any) -> MPSAHead:
    return MPSAHead(num_classes=num_classes, embed_dim=16, **options)


@pytest.mark.parametrize("classes", [1, 3])
@pytest.mark.parametrize("prompts", [1, 4])
def test_one_class_and_one_prompt(classes: int, prompts: int) -> None:
    model = head(classes).train()
    inputs = features((True,) * classes, prompts)
    losses = model.loss(inputs, samples(torch.randint(0, classes, (2, 24, 40))))
    assert set(losses) == {f"{m}.loss_{k}" for m in ("score", "decoder") for k in ("mask", "dice")}
    total = sum(losses.values())
    total.backward()
    assert torch.isfinite(total) and torch.isfinite(inputs.pixels[0].grad).all()


def test_prediction_is_sigmoid_less_the_bias() -> None:
    model, inputs = head(seen_bias=0.25).eval(), features()
    size = [{"img_shape": (24, 40)}] * 2
    maps = model(inputs)
    mean = F.interpolate((maps["score"] + maps["decoder"]) / 2, (24, 40), mode="bilinear").sigmoid()
    bias = torch.tensor([0.25, 0, 0.25])[:, None, None]
    assert torch.allclose(model.predict(inputs, size, None), mean - bias, atol=1e-6)


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


def test_pseudo_labels_only_on_unlabeled_pixels_and_of_unseen_classes(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    model, inputs = head(4), features((True, False, True, False))
    labels = torch.randint(0, 3, (2, 8, 8))
    labels[labels == 1] = 2
    labels[:, :4, :4] = UNLABELED
    labels[:, 7] = 255
    seen_targets: list[torch.Tensor] = []

    def record(logits: torch.Tensor, target: torch.Tensor, *_: Any) -> dict[str, torch.Tensor]:
        seen_targets.append(target)
        return {"loss": logits.sum()}

    monkeypatch.setattr(model, "loss_decode", torch.nn.Identity())
    monkeypatch.setattr(model.loss_decode, "forward", record)
    model.loss(inputs, samples(labels))
    target = seen_targets[0]
    unlabeled = labels == UNLABELED
    assert set(target[unlabeled].tolist()) <= {1, 3}
    assert torch.equal(target[~unlabeled], labels[~unlabeled])


def test_unlabeled_is_ignored_without_queries_of_unseen_classes() -> None:
    model, inputs = head().eval(), features((True, True), classes=(0, 2))
    labels = torch.randint(0, 2, (2, 8, 8)) * 2
    ignored, unlabeled = labels.clone(), labels.clone()
    ignored[:, :4], unlabeled[:, :4] = 255, UNLABELED
    first, second = (model.loss(inputs, samples(x)) for x in (ignored, unlabeled))
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_wrong_options_are_named() -> None:
    with pytest.raises(ValueError, match="predict_from"):
        head(predict_from="both")
    with pytest.raises(ValueError, match="predict_from='score'"):
        head(decoder_layers=0)
    with pytest.raises(ValueError, match=r"num_levels=1.*2"):
        head()(features(levels=2))
    with pytest.raises(ValueError, match=r"3 classes.*num_classes=5"):
        head(5).predict(features(), [{"img_shape": (8, 8)}] * 2, None)


@pytest.mark.parametrize("transport", ["sinkhorn", "softmax"])
def test_the_plan_is_the_one_behind_the_score_map(transport: str) -> None:
    model, inputs = head(transport=transport).eval(), features()
    plan = model.plan(inputs)
    assert plan.shape == (2, 3, 2, 3, 5)
    torch.testing.assert_close(plan.sum((2, 3, 4)), torch.ones(2, 3))
    cosine = torch.einsum("bdhw,bknd->bknhw", inputs.pixels[0], F.normalize(inputs.queries, dim=-1))
    expected = (plan * cosine).sum(2) * 2 * 15
    torch.testing.assert_close(model(inputs)["score"], expected, atol=1e-5, rtol=1e-4)
