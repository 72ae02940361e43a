"""Fused kernels without a GPU: run in Triton's interpreter, and compiled ahead of time."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

needs_interpreter = pytest.mark.skipif(
    tuple(int(part) for part in torch.__version__.split(".")[:2]) < (2, 10),
    reason="the interpreter of torch 2.9's Triton fails on the scalars of NumPy 2.4",
)


# The operations need nothing of mm, whose import would take longer than these tests.
WITHOUT_MM = """
import sys
sys.modules.update(dict.fromkeys(("mmengine", "mmcv", "mmseg")))
import pytest
sys.exit(pytest.main(["-q", "-p", "no:cacheprovider", "--noconftest", *sys.argv[1:]]))
"""


def assert_passes_in_the_interpreter(file: Path) -> None:
    """Run a file of tests with Triton's interpreter, which is chosen when Triton is imported."""
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT_MM, str(file)],
        cwd=Path(__file__).parents[2],
        env={**os.environ, "TRITON_INTERPRET": "1"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout[-5000:]


def assert_compiles(
    kernel: Any, signature: dict[str, str], constants: dict[str, Any], architecture: int
) -> None:
    """Compile a kernel ahead of time for a GPU of an architecture, such as 90 for sm_90."""
    import triton
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    types = {**signature, **dict.fromkeys(constants, "constexpr")}
    source = ASTSource(kernel, types, constants)
    compiled = triton.compile(source, target=GPUTarget("cuda", architecture, 32))
    assert compiled.asm["cubin"]
    assert compiled.metadata.shared <= 160 * 1024  # what a program may have there
