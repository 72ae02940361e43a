"""The floating type in which frozen towers are stored and run."""

from __future__ import annotations

import copy
from typing import TypeVar

import torch
from torch import nn

from mmseg_otseg.errors import UserError

PRECISIONS = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}

Module = TypeVar("Module", bound=nn.Module)


def check_precision(precision: str) -> str:
    """Return ``precision`` if it is the name of one.

    Raises:
        UserError: If it is not.
    """
    if not isinstance(precision, str) or precision not in PRECISIONS:
        raise UserError(
            f"`precision` of a CLIP must be one of {', '.join(PRECISIONS)}, got {precision!r}"
        )
    return precision


def in_precision(module: Module, precision: str) -> Module:
    """The module in a precision: a converted copy, or the module itself for ``"fp32"``.

    Raises:
        UserError: If there is no such precision.
    """
    dtype = PRECISIONS[check_precision(precision)]
    return module if dtype == torch.float32 else copy.deepcopy(module).to(dtype)
