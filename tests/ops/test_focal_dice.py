"""The mask loss against its plain formulation."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from mmseg.registry import MODELS
from torch import Tensor

from mmseg_otseg.errors import UserError
from mmseg_otseg.models import FocalDiceLoss
from mmseg_otseg.ops import focal_dice_sums, mask_loss
from tools.benchmarks.plain import plain_focal_dice

pytestmark = pytest.mark.usefixtures("device")

SHAPES = {  # (B, K, H, W), (h, w)
    "16 times larger": ((2, 5, 4, 4), (64, 64)),
    "one class": ((2, 1, 3, 5), (17, 29)),
    "smaller": ((2, 3, 9, 9), (5, 4)),
    "one row larger, one column smaller": ((1, 4, 8, 8), (9, 7)),
    "one patch": ((1, 4, 1, 1), (6, 5)),
    "many classes": ((1, 40, 6, 7), (50, 61)),
    "more classes than pixels": ((2, 300, 3, 4), (12, 16)),
}


def example(shape: str, dtype: torch.dtype = torch.float32) -> tuple[Tensor, Tensor]:
    (batch, classes, *size), new_size = SHAPES[shape]
    generator = torch.Generator(torch.get_default_device()).manual_seed(0)
    logits = 3 * torch.randn(batch, classes, *size, generator=generator).to(dtype)
    target = torch.randint(0, classes, (batch, *new_size), generator=generator)
    ignored = torch.rand(target.shape, generator=generator) < 0.3
    return logits, target.masked_fill(ignored, 255 if classes < 255 else -1)


def with_gradient(
    function: Callable[..., Any], logits: Tensor, target: Tensor, **options: object
) -> tuple[list[Tensor], Tensor]:
    logits = logits.clone().requires_grad_()
    focal, dice, pairs = function(logits, target, **options)
    (3 * focal + dice).backward()
    assert logits.grad is not None
    return [focal.detach(), dice.detach(), pairs], logits.grad


def assert_is_the_plain_one(logits: Tensor, target: Tensor, **options: object) -> None:
    sums, gradient = with_gradient(focal_dice_sums, logits, target, **options)
    expected, expected_gradient = with_gradient(plain_focal_dice, logits, target, **options)
    exact = logits.dtype == torch.float64
    for value, wanted in zip(sums, expected, strict=True):
        assert torch.allclose(value, wanted, rtol=1e-10 if exact else 1e-5, atol=1e-12)
    largest = expected_gradient.abs().max()
    error = (gradient - expected_gradient).abs().max()
    assert error <= (1e-10 if exact else 1e-4) * largest


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("ignored", ["negative", "masked"])
@pytest.mark.parametrize("shape", SHAPES)
def test_is_the_plain_formulation(shape: str, ignored: str, dtype: torch.dtype) -> None:
    assert_is_the_plain_one(*example(shape, dtype), ignored=ignored)


@pytest.mark.parametrize(("alpha", "gamma"), [(0.0, 0.5), (0.7, 0.0), (1.0, 3.0)])
def test_other_exponents_and_weights(alpha: float, gamma: float) -> None:
    logits, target = example("one row larger, one column smaller", torch.float64)
    assert_is_the_plain_one(logits, target, alpha=alpha, gamma=gamma)


@pytest.mark.parametrize("ignored", ["negative", "masked"])
def test_tiles_leave_no_seam(ignored: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Tiles of three rows of two classes, with remainders everywhere."""
    logits, target = example("many classes", torch.float64)
    monkeypatch.setattr(mask_loss, "TILE_PER_THREAD", 3 * 2 * 61 // torch.get_num_threads() + 1)
    monkeypatch.setattr(mask_loss, "ROWS_PER_BAND", 3)
    monkeypatch.setattr(mask_loss, "PIXELS_AT_ONCE", 7 * 61)
    assert_is_the_plain_one(logits, target, ignored=ignored)


def test_half_precision_and_autocast_compute_in_float32(device: torch.device) -> None:
    logits, target = example("16 times larger")
    expected = torch.stack(focal_dice_sums(logits.bfloat16().float(), target))
    with torch.autocast(device.type, dtype=torch.bfloat16):
        half = logits.bfloat16().requires_grad_()
        sums = focal_dice_sums(half, target)
    assert torch.equal(torch.stack(sums), expected)
    sums.focal.backward()
    assert half.grad.dtype == torch.bfloat16 and half.grad.isfinite().all()


def test_weights_and_pairs() -> None:
    logits, target = example("16 times larger")
    sums = focal_dice_sums(logits, target)
    losses = MODELS.build({"type": "FocalDiceLoss", "mask_weight": 7.0, "dice_weight": 3.0})(
        logits, target
    )
    assert sums.pairs == 10
    assert torch.allclose(losses["loss_mask"], 7 * sums.focal / 10)
    assert torch.allclose(losses["loss_dice"], 3 * sums.dice / 10)


def test_a_typo_in_what_is_ignored() -> None:
    with pytest.raises(UserError, match=r"negative, masked.*'maskd'"):
        FocalDiceLoss(ignored="maskd")
    with pytest.raises(ValueError, match="'maskd'"):
        focal_dice_sums(*example("one patch"), ignored="maskd")


@pytest.mark.parametrize("ignored", ["negative", "masked"])
def test_without_a_labeled_pixel_nothing_is_learnt(ignored: str) -> None:
    logits, target = example("16 times larger")
    losses = FocalDiceLoss(ignored=ignored)(logits.requires_grad_(), torch.full_like(target, 255))
    assert losses["loss_mask"] == 0 and losses["loss_dice"] == 0
    sum(losses.values()).backward()
    assert logits.grad is not None and not logits.grad.any()
