"""Reading CLIP weights files of all common formats without executing what they hold."""

from __future__ import annotations

import warnings
import zipfile
from pathlib import Path

import torch
from open_clip.factory import load_state_dict
from torch import Tensor

from mmseg_otseg.errors import UserError

# What OpenAI's archives hold besides weights.
ARCHIVE_EXTRAS = ("input_resolution", "context_length", "vocab_size", "attn_mask")


def read_clip_weights(path: Path) -> dict[str, Tensor]:
    """Read names and tensors from a CLIP weights file.

    OpenAI's archives are TorchScript programs. Loading one compiles it and runs nothing; torch's
    other reader, which open_clip uses for everything else, refuses them.

    Args:
        path: An OpenAI ``.pt`` archive, a file of ``torch.save`` (weights by name, or a training
            checkpoint of open_clip) or a ``.safetensors`` file.

    Returns:
        Names to tensors, on the CPU.

    Raises:
        UserError: Naming the file, if it holds anything else, or is damaged.
    """
    try:
        if is_torchscript_archive(path):
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", FutureWarning)  # torch advises torch.export
                found = torch.jit.load(path, map_location="cpu").state_dict()
            return {k: v for k, v in found.items() if not k.endswith(ARCHIVE_EXTRAS)}
        weights = load_state_dict(str(path), weights_only=True)
        for name, tensor in weights.items():
            if not isinstance(name, str) or not isinstance(tensor, Tensor):
                raise UserError(f"its entry {name!r} is not a named tensor")
    except Exception as error:  # a broken file can make its reader raise anything
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        if reason.startswith("Weights only load failed"):  # torch's advice is to execute the file
            reason = "it holds other things than tensors by name, or is damaged"
        raise UserError(f"cannot read CLIP weights from {path}: {reason}") from error
    if any(name.startswith("vision_model.") for name in weights):
        raise UserError(
            f"the CLIP weights in {path} have the layout of transformers. Use the file in "
            "open_clip's layout, which usually lies in the same or a neighboring repository as "
            "open_clip_model.safetensors or open_clip_pytorch_model.bin; OpenAI's weights have the "
            "tag 'openai'."
        )
    return dict(weights)


def is_torchscript_archive(path: str | Path) -> bool:
    """Whether a file is a zip archive with TorchScript's ``constants.pkl``."""
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
    except (OSError, zipfile.BadZipFile, ValueError):
        return False
    return any(name.count("/") == 1 and name.endswith("/constants.pkl") for name in names)
