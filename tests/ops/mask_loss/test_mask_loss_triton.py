"""The fused kernels compile for GPUs, and compute the right thing in Triton's interpreter."""

from __future__ import annotations

from pathlib import Path

import pytest

from mmseg_otseg.ops.mask_loss.focal_dice import FUSED_MAX_SIDE
from tests.helpers.fused_kernels import (
    assert_compiles,
    assert_passes_in_the_interpreter,
    needs_interpreter,
)

pytest.importorskip("triton", reason="this torch comes without Triton")
from mmseg_otseg.ops.mask_loss import triton_kernels as fused

ROWS = {
    **{"logits": "*fp32", "target": "*i64"},
    **{"row_index": "*i64", "row_weight": "*fp32", "row_outputs": "*i64"},
    **{"column_index": "*i64", "column_weight": "*fp32", "column_matrix": "*fp32"},
    **{"gradients": "*fp32", "sums": "*fp32"},
    **{"width": "i32", "new_height": "i32", "new_width": "i32", "alpha": "fp32", "gamma": "fp32"},
}
LOSSES = {
    **dict.fromkeys(("parts", "sums", "gradients", "losses"), "*fp32"),
    **{"height": "i32", "cells": "i32"},
}


@needs_interpreter
def test_in_the_interpreter() -> None:
    assert_passes_in_the_interpreter(Path(__file__).with_name("interpreted_mask_loss.py"))


@pytest.mark.filterwarnings("ignore:TRITON_DEFAULT_FP_FUSION")
@pytest.mark.parametrize("architecture", [80, 90])
@pytest.mark.parametrize(
    ("side", "new_side", "masked"), [(32, 512, False), (FUSED_MAX_SIDE, 2048, True)]
)
def test_compiles_for_gpus(side: int, new_side: int, masked: bool, architecture: int) -> None:
    blocks = fused.rows_blocks(side, new_side)
    taps = {"ROW_TAPS": 2, "COLUMN_TAPS": 2, "MASKED": masked}
    assert_compiles(fused.rows_kernel, ROWS, {**taps, **blocks}, architecture)
    assert_compiles(fused.losses_kernel, LOSSES, fused.losses_blocks(side, side), architecture)
