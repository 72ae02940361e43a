"""The fused kernels compile for GPUs, and compute the right thing in Triton's interpreter."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from mmseg_otseg.ops.optimal_transport.implicit import FUSED_MAX_COLUMNS, FUSED_MAX_ROWS

triton = pytest.importorskip("triton", reason="this torch comes without Triton")
from triton.backends.compiler import GPUTarget  # noqa: E402
from triton.compiler import ASTSource  # noqa: E402

from mmseg_otseg.ops.optimal_transport import triton_kernels as fused  # noqa: E402


@pytest.mark.skipif(
    tuple(int(part) for part in torch.__version__.split(".")[:2]) < (2, 10),
    reason="the interpreter of torch 2.9's Triton fails on the scalars of NumPy 2.4",
)
def test_in_the_interpreter() -> None:
    file = Path(__file__).with_name("interpreted_sinkhorn.py")
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(file)],
        cwd=Path(__file__).parents[3],
        env={**os.environ, "TRITON_INTERPRET": "1"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout[-5000:]


FORWARD = {
    **dict.fromkeys(("cost", "a", "b", "plan"), "*fp32"),
    **{"iterations": "*i64", "converged": "*i8", "columns": "i32", "rows": "i32"},
    **{"epsilon": "fp32", "max_iters": "i32", "tol": "fp32", "smallest": "fp32"},
}
BACKWARD = {
    **dict.fromkeys(("plan", "grad_plan", "grad_cost"), "*fp32"),
    **{"columns": "i32", "rows": "i32", "epsilon": "fp32", "tiny": "fp32"},
}


@pytest.mark.filterwarnings("ignore:TRITON_DEFAULT_FP_FUSION")
@pytest.mark.parametrize(
    ("architecture", "size"),
    [(80, (6, 1024)), (90, (6, 1024)), (90, (FUSED_MAX_COLUMNS, FUSED_MAX_ROWS))],
)
def test_compiles_for_gpus(architecture: int, size: tuple[int, int]) -> None:
    for kernel, signature, least in (
        (fused.forward_kernel, FORWARD, 1),
        (fused.backward_kernel, BACKWARD, 16),
    ):
        sizes = fused._blocks(*size, least)
        types = {**signature, **dict.fromkeys(sizes, "constexpr")}
        source = ASTSource(kernel, types, sizes)
        compiled = triton.compile(source, target=GPUTarget("cuda", architecture, 32))
        assert compiled.asm["cubin"]
        assert compiled.metadata.shared <= 160 * 1024  # what a program may have there
