"""Whether the fused kernels are asked for and can run."""

from __future__ import annotations

import os
from importlib.util import find_spec

import torch
from torch import Tensor

# The environment variable that turns the fused kernels on.
FUSED = "MMSEG_OTSEG_TRITON"


def wants_fused(values: Tensor) -> bool:
    """Whether kernels written in Triton are asked for and take values of this kind.

    Args:
        values: What they would compute with.

    Returns:
        True for float32 on a GPU if ``MMSEG_OTSEG_TRITON=1`` is set and Triton is there.
    """
    return (
        os.environ.get(FUSED, "0") == "1"
        and values.is_cuda
        and values.dtype == torch.float32
        and find_spec("triton") is not None
    )
