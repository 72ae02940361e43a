from __future__ import annotations

from functools import partial
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from mmengine.structures import PixelData
from mmseg.structures import SegDataSample
from torch import Tensor

from mmseg_otseg.errors import UserError
from mmseg_otseg.models import MPSAHead
from mmseg_otseg.models.decode_heads.mpsa_head import MPSADecoder, MPSADecoderLayer, MPSAMap
from mmseg_otseg.ops import multi_prompt, sinkhorn
from mmseg_otseg.structures import AlignedFeatures

pytestmark = pytest.mark.usefixtures("device")


def inputs(prompts: int = 3, width: int = 16) -> tuple[Tensor, Tensor]:
    generator = torch.Generator(torch.get_default_device()).manual_seed(0)
    queries = torch.randn(2, 4, prompts, width, generator=generator)
    pixels = F.normalize(torch.randn(2, 20, width, generator=generator), dim=-1)
    return queries, pixels


def plain_map(
    module: MPSAMap, queries: Tensor, pixels: Tensor, **stop: float
) -> tuple[Tensor, Tensor]:
    """The formulas of the paper, class by class: map (B, K, M) and plan (B, K, N, M)."""
    key = F.normalize(module.key(pixels), dim=-1)
    query = F.normalize(module.query(queries), dim=-1)
    maps, plans = [], []
    for k in range(queries.shape[1]):
        similarity = torch.einsum("bmd,bnd->bmn", key, query[:, k])
        plan = sinkhorn(1 - similarity, module.epsilon, backward="unrolled", **stop).plan
        maps.append((plan * similarity).sum(-1) * plan[0].numel())
        plans.append(plan.transpose(1, 2))
    return torch.stack(maps, 1), torch.stack(plans, 1)


def plain_layer(
    layer: MPSADecoderLayer, queries: Tensor, pixels: Tensor, **stop: float
) -> tuple[Tensor, Tensor]:
    class_map, plan = plain_map(layer.attention, queries, pixels, **stop)
    attended = torch.einsum("bknm,bmd->bknd", plan, layer.value(pixels))
    queries = layer.norm1(queries + layer.proj(attended))
    return layer.norm2(queries + layer.feed_forward(queries)), class_map


def test_layer_and_its_gradients_are_the_formulas(monkeypatch: pytest.MonkeyPatch) -> None:
    """At random sizes, with Sinkhorn to convergence."""
    stop: dict[str, Any] = {"max_iters": 5000, "tol": 1e-13}
    monkeypatch.setattr(multi_prompt, "sinkhorn", partial(sinkhorn, **stop))
    generator = torch.Generator(torch.get_default_device()).manual_seed(0)
    # At this epsilon it converges.
    layer = MPSADecoderLayer(MPSAMap(16, epsilon=0.2), 16, 0.1).double().eval()
    forwards: tuple[Any, ...] = (layer, partial(plain_layer, layer, **stop))
    for _ in range(20):
        sizes = torch.randint(1, 9, (4,), generator=generator).tolist()
        batch, classes, prompts, pixel_count = sizes
        queries = torch.randn(batch, classes, prompts, 16, generator=generator)
        pixels = torch.randn(batch, pixel_count, 16, generator=generator)
        queries, pixels = (x.double().requires_grad_() for x in (queries, pixels))
        results = []
        for forward in forwards:
            refined, class_map = forward(queries, pixels)
            loss = refined.pow(3).sum() + class_map.square().sum()
            gradients = torch.autograd.grad(loss, [queries, pixels, *layer.parameters()])
            results.append([refined, class_map, *gradients])
        for value, expected in zip(*results, strict=True):
            assert (value - expected).abs().max() <= 1e-6 * expected.abs().max().clamp_min(1e-2)


def test_maps_gate_each_other() -> None:
    queries, pixels = inputs()
    decoder = MPSADecoder(16, num_layers=3).eval()
    maps, refined = [], queries
    for layer in decoder.layers:
        refined, class_map = layer(refined, pixels)
        maps.append(class_map)
    expected = decoder.last(refined, pixels)[0] * (maps[0].sigmoid() * maps[1].sigmoid()).sqrt()
    assert torch.allclose(decoder(queries, pixels), expected, atol=1e-6)


def test_strongly_negative_maps_gate_to_zero_with_finite_gradients() -> None:
    queries, pixels = inputs()
    decoder = MPSADecoder(16).eval()
    decoder.layers[0].attention.forward = lambda q, p: (
        torch.full((2, 4, 20), -500.0),
        torch.full((2, 4, 3, 20), 1 / 60),
    )
    result = decoder(queries, pixels)
    result.sum().backward()
    assert not result.any()
    assert all(p.grad is None or p.grad.isfinite().all() for p in decoder.parameters())


# The head -----------------------------------------------------------------------------------------


def features(seen: tuple[bool, ...] = (True, False, True), levels: int = 1) -> AlignedFeatures:
    pixels = tuple(F.normalize(torch.randn(2, 16, 3, 5), dim=1) for _ in range(levels))
    queries = torch.randn(2, len(seen), 2, 16)
    known = torch.tensor(seen)
    unseen = (~known).nonzero()[:, 0]
    return AlignedFeatures(pixels, queries, torch.arange(len(seen)), known, unseen)


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


@pytest.mark.parametrize(
    ("options", "message"),
    [({"transport": "softmx"}, "softmax.*'softmx'"), ({"epsilon": 0}, "epsilon.* 0")],
)
def test_mistyped_settings_are_the_users(options: dict, message: str) -> None:
    with pytest.raises(UserError, match=message):
        head(**options)(features())
