"""The fused kernels compile for GPUs, and compute the right thing in Triton's interpreter."""

from __future__ import annotations

from pathlib import Path

import pytest

from mmseg_otseg.ops.optimal_transport.implicit import FUSED_MAX_COLUMNS, FUSED_MAX_ROWS
from tests.helpers.fused_kernels import (
    assert_compiles,
    assert_passes_in_the_interpreter,
    needs_interpreter,
)

pytest.importorskip("triton", reason="this torch comes without Triton")
from mmseg_otseg.ops.optimal_transport import triton_kernels, triton_launch


@needs_interpreter
def test_in_the_interpreter() -> None:
    assert_passes_in_the_interpreter(Path(__file__).with_name("interpreted_sinkhorn.py"))


FORWARD = {
    **dict.fromkeys(("values", "a", "b", "result", "scaling"), "*fp32"),
    **{"iterations": "*i64", "converged": "*i8", "columns": "i32", "rows": "i32"},
    **{"epsilon": "fp32", "max_iters": "i32", "tol": "fp32", "smallest": "fp32"},
}
BACKWARD = {
    **dict.fromkeys(("values", "a", "scaling", "upstream", "result"), "*fp32"),
    **{"columns": "i32", "rows": "i32", "epsilon": "fp32", "tiny": "fp32"},
}


@pytest.mark.filterwarnings("ignore:TRITON_DEFAULT_FP_FUSION")
@pytest.mark.parametrize("sign", [1, -1], ids=["plan", "score"])
@pytest.mark.parametrize(
    ("architecture", "size"),
    [(80, (6, 1024)), (90, (6, 1024)), (90, (FUSED_MAX_COLUMNS, FUSED_MAX_ROWS))],
)
def test_compiles_for_gpus(architecture: int, size: tuple[int, int], sign: int) -> None:
    for kernel, signature, least in (
        (triton_kernels.scaling_kernel, FORWARD, 1),
        (triton_kernels.backward_kernel, BACKWARD, 16),
    ):
        constants = {"SIGN": sign, **triton_launch._blocks(*size, least)}
        assert_compiles(kernel, signature, constants, architecture)
