"""CLIP's towers in half precision, and all that trains in float32."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from mmseg_otseg.inference import set_classes
from mmseg_otseg.models import load_clip
from mmseg_otseg.models.clip import FrozenTower
from mmseg_otseg.ops import multi_prompt_plan
from tests.helpers.small_voc import METHODS, build, gradients, losses

pytestmark = pytest.mark.usefixtures("device")

HALF = {"bf16": torch.bfloat16, "fp16": torch.float16}
# Largest relative error (by norm) of maps and gradients against float32: a few roundings.
TOLERANCE = {"bf16": 0.04, "fp16": 0.006}


def distance(one: Tensor, other: Tensor) -> float:
    return float((one - other).norm() / other.norm())


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
@pytest.mark.parametrize("name", METHODS)
def test_a_training_step_is_that_of_float32(name: str, precision: str) -> None:
    exact, rounded = build(name), build(name, precision)
    towers = [part for part in rounded.modules() if isinstance(part, FrozenTower)]
    assert towers
    frozen = {id(p) for tower in towers for p in tower.parameters()}
    for parameter in rounded.parameters():
        kind = HALF[precision] if id(parameter) in frozen else torch.float32
        assert parameter.dtype == kind
        assert parameter.requires_grad == (id(parameter) not in frozen)
    for part, reference in zip(rounded.parameters(), exact.parameters(), strict=True):
        if part.requires_grad:  # what starts from CLIP starts from its unrounded weights
            assert torch.allclose(part, reference, atol=1e-3 if name == "zegot" else 0)
    found, expected = losses(rounded.train()), losses(exact.train())
    for key, value in expected.items():
        assert found[key].dtype == torch.float32
        assert found[key].item() == pytest.approx(value.item(), rel=TOLERANCE[precision])
    sum(found.values()).backward()
    sum(expected.values()).backward()
    assert all(gradient.dtype == torch.float32 for gradient in gradients(rounded).values())
    both = [torch.cat([g.flatten() for g in gradients(m).values()]) for m in (rounded, exact)]
    assert distance(*both) < 3 * TOLERANCE[precision]


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
@pytest.mark.parametrize("name", METHODS)
def test_a_checkpoint_fits_each_precision(name: str, precision: str) -> None:
    exact, rounded = build(name), build(name, precision)
    with torch.no_grad():
        for parameter in exact.parameters():
            if parameter.requires_grad:
                parameter.add_(0.01 * torch.randn_like(parameter))
    rounded.load_state_dict(exact.state_dict())
    exact.load_state_dict(rounded.state_dict())
    image = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        expected = exact.eval().predict(image)[0].seg_logits.data
        found = rounded.eval().predict(image)[0].seg_logits.data
        assert found.dtype == torch.float32
        assert torch.allclose(found, expected, atol=TOLERANCE[precision])
        set_classes(rounded, ["dog", "cat"])
        set_classes(exact, ["dog", "cat"])
        expected = exact.predict(image)[0].seg_logits.data
        assert torch.allclose(
            rounded.predict(image)[0].seg_logits.data, expected, atol=TOLERANCE[precision]
        )


@pytest.mark.parametrize("precision", ["half", None, 16, ["bf16"]])
def test_an_unknown_precision_is_named(precision: Any, clip: dict) -> None:
    with pytest.raises(ValueError, match=r"`precision`.*fp32, bf16, fp16"):
        load_clip(**clip, precision=precision)


def test_costs_are_taken_after_widening() -> None:
    """In bfloat16, 1 - S would be in steps of 1/256, a good part of epsilon."""
    torch.manual_seed(0)
    similarity = (0.9 + 0.05 * torch.rand(1, 2, 4, 50)).to(torch.bfloat16)
    assert torch.equal(multi_prompt_plan(similarity), multi_prompt_plan(similarity.float()))


@pytest.mark.parametrize("epsilon", [0.05, 1e-2, 1e-3])
@pytest.mark.parametrize("precision", [*HALF, "fp32"])
def test_no_nan_at_any_epsilon(precision: str, epsilon: float) -> None:
    model = build("otseg", precision).train()
    for module in model.modules():
        if hasattr(module, "epsilon"):
            module.epsilon = epsilon
    found = losses(model)
    sum(found.values()).backward()
    assert all(value.isfinite() for value in found.values())
    assert all(gradient.isfinite().all() for gradient in gradients(model).values())
