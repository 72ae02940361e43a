"""The fused kernels compile for GPUs, and compute the right thing in Triton's interpreter."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from mmseg_otseg.ops.optimal_transport.plan import FUSED_MAX_COLUMNS, FUSED_MAX_ROWS

pytest.importorskip("triton", reason="this torch comes without Triton")
from mmseg_otseg.ops.optimal_transport import triton_kernels

INTERPRETED = Path(__file__).with_name("interpreted_sinkhorn.py")
# The kernels need nothing of mm, whose import would take longer than these tests.
WITHOUT_MM = """
import sys
sys.modules.update(dict.fromkeys(("mmengine", "mmcv", "mmseg")))
import pytest
sys.exit(pytest.main(["-q", "-p", "no:cacheprovider", "--noconftest", *sys.argv[1:]]))
"""
FORWARD = {
    **dict.fromkeys(("costs", "plan"), "*fp32"),
    **{"iterations": "*i64", "converged": "*i8", "columns": "i32", "rows": "i32"},
    **{"epsilon": "fp32", "max_iters": "i32", "tol": "fp32", "min_kernel": "fp32"},
}
BACKWARD = {
    **dict.fromkeys(("plans", "upstream", "result"), "*fp32"),
    **{"columns": "i32", "rows": "i32", "epsilon": "fp32", "tiny": "fp32"},
}


@pytest.mark.skipif(
    tuple(int(part) for part in torch.__version__.split(".")[:2]) < (2, 10),
    reason="the interpreter of torch 2.9's Triton fails on the scalars of NumPy 2.4",
)
def test_in_the_interpreter() -> None:
    """The interpreter is chosen when Triton is imported."""
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT_MM, str(INTERPRETED)],
        cwd=Path(__file__).parents[2],
        env={**os.environ, "TRITON_INTERPRET": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-5000:]


@pytest.mark.filterwarnings("ignore:TRITON_DEFAULT_FP_FUSION")
@pytest.mark.parametrize(
    ("architecture", "size"),
    [(80, (6, 1024)), (90, (6, 1024)), (90, (FUSED_MAX_COLUMNS, FUSED_MAX_ROWS))],
)
def test_compiles_for_gpus(architecture: int, size: tuple[int, int]) -> None:
    import triton
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    for kernel, signature, least in (
        (triton_kernels.scaling_kernel, FORWARD, 1),
        (triton_kernels.backward_kernel, BACKWARD, 16),
    ):
        constants = triton_kernels.block_sizes(*size, least)
        types = {**signature, **dict.fromkeys(constants, "constexpr")}
        source = ASTSource(kernel, types, constants)
        compiled = triton.compile(source, target=GPUTarget("cuda", architecture, 32))
        assert compiled.asm["cubin"]
        assert compiled.metadata.shared <= 160 * 1024  # what a program may have there
