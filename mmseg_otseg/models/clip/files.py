"""Reading CLIP weights files of all common formats without trusting them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from torch import Tensor

from mmseg_otseg.engine.checkpoint import read_checkpoint
from mmseg_otseg.errors import UserError

from .torchscript import is_torchscript_archive, read_torchscript_tensors

# What OpenAI's archives hold besides weights.
ARCHIVE_EXTRAS = ("input_resolution", "context_length", "vocab_size", "attn_mask")


def read_clip_weights(path: Path) -> dict[str, Tensor]:
    """Read names and tensors from a CLIP weights file.

    Args:
        path: An OpenAI ``.pt`` archive, a file of ``torch.save`` (weights by name, or a training
            checkpoint of open_clip) or a ``.safetensors`` file.

    Returns:
        Names to tensors, on the CPU.

    Raises:
        UserError: Naming the file, if it holds anything else, or is damaged.
    """
    try:
        if path.suffix in (".npy", ".npz"):
            raise UserError("numpy files hold no CLIP weights that open_clip's models can take")
        if is_torchscript_archive(path):
            found = read_torchscript_tensors(path)
            return {k: v for k, v in found.items() if not k.endswith(ARCHIVE_EXTRAS)}
        content = read_checkpoint(path, map_location="cpu")
        weights = content.get("state_dict", content) if isinstance(content, Mapping) else None
        if not isinstance(weights, Mapping) or not weights:
            raise UserError("it holds no weights by name")
        for name, tensor in weights.items():
            _check_weight(name, tensor)
    except Exception as error:  # a broken file can make its reader raise anything
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise UserError(f"cannot read CLIP weights from {path}: {reason}") from error
    return {name.removeprefix("module."): tensor for name, tensor in weights.items()}


def _check_weight(name: object, tensor: object) -> None:
    if not isinstance(name, str) or not isinstance(tensor, Tensor):
        raise UserError(f"its entry {name!r} is not a named tensor, but {type(tensor).__name__}")
    # A view that repeats a few numbers (stride 0) could take any amount of memory once it is used.
    if tensor.numel() * tensor.element_size() > tensor.untyped_storage().nbytes():
        raise UserError(f"the tensor {name!r} claims more numbers than the file holds")
