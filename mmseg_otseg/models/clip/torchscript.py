"""Tensors of a TorchScript archive, read without running what the archive brings.

OpenAI published its CLIP weights as TorchScript programs. ``torch.load(weights_only=True)`` refuses
those and ``torch.jit.load`` compiles their code; the weights alone need neither.
"""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import Any

from torch import Tensor

from mmseg_otseg.errors import UserError
from mmseg_otseg.files import PlainValues, TorchFile
from mmseg_otseg.files.pickle_tree import Call


def is_torchscript_archive(path: str | Path) -> bool:
    """Whether a file is a zip archive with TorchScript's ``constants.pkl``."""
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
    except Exception:  # a broken file can make zipfile raise anything
        return False
    return any(name.count("/") == 1 and name.endswith("/constants.pkl") for name in names)


def read_torchscript_tensors(path: str | Path) -> dict[str, Tensor]:
    """Parameters and buffers of a TorchScript module, as its ``state_dict`` names them.

    Args:
        path: A TorchScript archive.

    Returns:
        Names to tensors.

    Raises:
        UserError: If the archive's object tree holds anything but modules, plain containers,
            numbers, strings and tensors, or the archive is damaged or claims more than it holds.
        KeyError: If parts of the archive are missing.
    """
    tensors: dict[str, Tensor] = {}
    with Path(path).open("rb") as stream:
        file = TorchFile(stream)
        if not _is_module(file.tree):
            raise UserError("the archive holds no module")
        _collect(file.tree, "", PlainValues(file.storage, file.size), tensors)
    return tensors


def _is_module(node: Any) -> bool:
    return (
        isinstance(node, Call)
        and node.function.path.startswith("__torch__.")
        and isinstance(node.state, dict)
    )


def _collect(module: Call, prefix: str, values: PlainValues, tensors: dict[str, Tensor]) -> None:
    for name, item in module.state.items():
        if _is_module(item):
            _collect(item, f"{prefix}{name}.", values, tensors)
        elif not _is_typed_list(item):  # whose items are options of the program
            value = values.make(item)
            if isinstance(value, Tensor):
                tensors[prefix + name] = value


def _is_typed_list(node: Any) -> bool:
    return isinstance(node, Call) and node.function.path.startswith("torch.jit._pickle.build_")
