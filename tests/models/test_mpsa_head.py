from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from mmengine.structures import PixelData
from mmseg.structures import SegDataSample

from mmseg_otseg.models import MPSAHead
from mmseg_otseg.structures import AlignedFeatures

pytestmark = pytest.mark.usefixtures("device")


def features(seen: tuple[bool, ...] = (True, False, True), levels: int = 1) -> AlignedFeatures:
    pixels = tuple(F.normalize(torch.randn(2, 16, 3, 5), dim=1) for _ in range(levels))
    queries = torch.randn(2, len(seen), 2, 16)
    return AlignedFeatures(pixels, queries, torch.arange(len(seen)), torch.tensor(seen))


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
