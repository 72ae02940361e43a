"""Tensors of a TorchScript archive, read without running what the archive brings.

OpenAI published its CLIP weights as TorchScript programs. ``torch.load(weights_only=True)`` refuses
those and ``torch.jit.load`` compiles their code; the weights alone need neither.
"""

from __future__ import annotations

import io
import pickle
import zipfile
from collections import OrderedDict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

STORAGE_DTYPES = {
    "HalfStorage": torch.float16,
    "FloatStorage": torch.float32,
    "DoubleStorage": torch.float64,
    "BFloat16Storage": torch.bfloat16,
    "LongStorage": torch.int64,
    "IntStorage": torch.int32,
    "BoolStorage": torch.bool,
    "ByteStorage": torch.uint8,
}


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
        pickle.UnpicklingError: If the archive's object tree holds anything but modules, plain
            containers, numbers, strings and tensors.
        KeyError: If parts of the archive are missing.
    """
    with zipfile.ZipFile(path) as archive:
        root = next(name for name in archive.namelist() if name.endswith("/data.pkl"))
        module = _TensorUnpickler(archive, root[: -len("data.pkl")]).load()
    if not isinstance(module, _Module):
        raise pickle.UnpicklingError("the archive holds no module")
    tensors: dict[str, Tensor] = {}
    _collect(module, "", tensors)
    return tensors


class _Module:
    """Stands in for every TorchScript class: keeps the attributes, has no behaviour."""

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)


class _StorageKind:
    """Stands in for a storage class; only its name matters."""

    def __init__(self, name: str) -> None:
        self.dtype = STORAGE_DTYPES[name]


def _rebuild_tensor(
    storage: Tensor, offset: int, size: tuple[int, ...], stride: tuple[int, ...], *_: Any
) -> Tensor:
    tensor = torch.as_strided(storage, size, stride, offset)
    if tensor.numel() > storage.numel():  # a copy would take any amount of memory
        raise pickle.UnpicklingError("a tensor claims more numbers than the archive holds")
    return tensor.clone()


class _TensorUnpickler(pickle.Unpickler):
    """Unpickler that knows modules, containers and tensors and refuses every other global."""

    def __init__(self, archive: zipfile.ZipFile, folder: str) -> None:
        super().__init__(io.BytesIO(archive.read(folder + "data.pkl")))
        self._archive, self._folder = archive, folder
        self._storages: dict[str, Tensor] = {}

    def find_class(self, module: str, name: str) -> Any:
        if module.startswith("__torch__"):
            return _Module
        if module == "torch" and name in STORAGE_DTYPES:
            return _StorageKind(name)
        if (module, name) == ("torch._utils", "_rebuild_tensor_v2"):
            return _rebuild_tensor
        if (module, name) == ("collections", "OrderedDict"):
            return OrderedDict
        if module == "torch.jit._pickle" and name.startswith("build_"):
            return lambda values, *_: values  # typed lists: what they hold is all that counts
        raise pickle.UnpicklingError(f"the archive refers to {module}.{name}, which is no weight")

    def persistent_load(self, pid: Any) -> Tensor:
        _, kind, key, _, count = pid
        if key not in self._storages:
            raw = self._archive.read(f"{self._folder}data/{key}")
            self._storages[key] = torch.frombuffer(bytearray(raw), dtype=kind.dtype, count=count)
        return self._storages[key]


def _collect(value: Any, prefix: str, tensors: dict[str, Tensor]) -> None:
    for name, item in vars(value).items():
        if isinstance(item, Tensor):
            tensors[prefix + name] = item
        elif isinstance(item, _Module):
            _collect(item, f"{prefix}{name}.", tensors)
