"""Decides whether the fused Triton kernels run."""

from __future__ import annotations

import os
from importlib.util import find_spec

import torch
from torch import Tensor

# The environment variable that turns the fused kernels on.
FUSED = "MMSEG_OTSEG_TRITON"


def wants_fused(values: Tensor) -> bool:
    """Whether the Triton kernels are enabled and support this tensor.

    Args:
        values: The tensor they would compute with, any shape.

    Returns:
        True for float32 on a GPU if ``MMSEG_OTSEG_TRITON=1`` is set and Triton is installed.
    """
    return (
        os.environ.get(FUSED, "0") == "1"
        and values.is_cuda
        and values.dtype == torch.float32
        and find_spec("triton") is not None
    )
