"""What the fused kernels compute, in Triton's interpreter: ``test_mask_loss_triton.py`` runs this.

The interpreter is chosen when Triton is imported, by TRITON_INTERPRET=1 in the environment.
"""

from __future__ import annotations

import os

import pytest
import torch
from torch import Tensor

from mmseg_otseg.ops.mask_loss import focal_dice
from mmseg_otseg.ops.mask_loss.bilinear import bilinear_axis
from mmseg_otseg.ops.mask_loss.triton_kernels import fused_sums_and_gradients

assert os.environ.get("TRITON_INTERPRET") == "1"

SIZES = {  # (B, K, H, W), (h, w)
    "16 times larger": ((1, 1, 2, 3), (32, 48)),
    "smaller": ((1, 3, 9, 8), (5, 4)),
    "same size": ((2, 2, 7, 6), (7, 6)),
    "one row larger, one column smaller": ((1, 2, 8, 8), (9, 7)),
    "one patch": ((1, 4, 1, 1), (6, 5)),
    "one pixel": ((1, 2, 3, 3), (1, 1)),
    "several blocks of pixels": ((1, 2, 2, 70), (4, 150)),
}


def run_fused(
    logits: Tensor,
    target: Tensor,
    alpha: float = 0.25,
    gamma: float = 2.0,
    masked: bool = False,
    align_corners: bool = False,
) -> tuple[Tensor, Tensor]:
    """Sums and gradients by the kernels."""
    rows, columns = (
        bilinear_axis(size, new_size, align_corners, torch.float32, torch.device("cpu"))
        for size, new_size in zip(logits.shape[2:], target.shape[1:])
    )
    return fused_sums_and_gradients(logits, target, rows, columns, alpha, gamma, masked)


def assert_is_todays(
    logits: Tensor,
    target: Tensor,
    alpha: float = 0.25,
    gamma: float = 2.0,
    masked: bool = False,
    align_corners: bool = False,
) -> None:
    """The kernels against the present path in float64, sums and both gradients."""
    settings = (alpha, gamma, masked, align_corners)
    expected = focal_dice._sums_and_gradients(logits.double(), target, *settings)
    found = run_fused(logits, target, *settings)
    assert torch.allclose(found[0].double(), expected[0], rtol=1e-5, atol=1e-6)
    for gradient, exact in zip(found[1], expected[1]):
        assert (gradient - exact).abs().max() <= 1e-5 * exact.abs().max()


def random_example(*sizes: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Logits (B, K, H, W) and labels (B, h, w), some of which are no class."""
    batch, classes, *rest = sizes
    generator = torch.Generator().manual_seed(seed)
    logits = 3 * torch.randn(batch, classes, *rest[:2], generator=generator)
    return logits, torch.randint(-1, classes + 2, (batch, *rest[2:]), generator=generator)


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("name", SIZES)
def test_is_todays_path(name: str, masked: bool) -> None:
    size, new_size = SIZES[name]
    assert_is_todays(*random_example(*size, *new_size), masked=masked)


@pytest.mark.parametrize("settings", [(0.0, 2.0), (1.0, 0.0), (0.7, 0.5), (0.25, 3.0)])
def test_other_weights_and_exponents(settings: tuple[float, float]) -> None:
    assert_is_todays(*random_example(2, 2, 3, 4, 7, 9), *settings)


def test_random_sizes() -> None:
    generator = torch.Generator().manual_seed(3)
    for seed in range(4):  # masked or not, with corners aligned or not
        batch, classes, *sizes = torch.randint(1, 16, (6,), generator=generator).tolist()
        logits, target = random_example(min(batch, 2), min(classes, 3), *sizes, seed=seed)
        assert_is_todays(logits, target, masked=bool(seed % 2), align_corners=seed % 3 == 0)


def test_huge_logits_stay_finite() -> None:
    logits, target = random_example(1, 2, 3, 3, 7, 7)
    assert_is_todays(20 * logits, target)
    found, gradients = run_fused(1e4 * logits, target)
    expected, _ = focal_dice._sums_and_gradients(
        1e4 * logits.double(), target, 0.25, 2.0, False, False
    )
    assert found.isfinite().all() and gradients.isfinite().all()
    assert torch.allclose(found[0].double(), expected[0], rtol=1e-5)


def test_no_label() -> None:
    logits, target = random_example(1, 2, 3, 3, 7, 7)
    for masked in (False, True):
        assert_is_todays(logits, torch.full_like(target, 255), masked=masked)
