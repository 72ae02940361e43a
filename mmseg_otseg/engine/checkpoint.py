"""Reads checkpoints without executing what they hold, and turns values into what can be saved.

Every file is read by ``torch.load(weights_only=True)``. Checkpoints of mmengine also hold NumPy
values and ``HistoryBuffer`` objects; while they are read, stand-ins take the place of these types,
and :func:`to_plain` turns them into lists and numbers. Importing :mod:`mmseg_otseg.engine` makes
mmengine read through this module too: for ``resume``, ``load_from`` and ``init_cfg``, and in the
inferencers of mmengine and mmseg. Checkpoints are written by
:class:`~mmseg_otseg.engine.hooks.DurableCheckpointHook`.
"""

from __future__ import annotations

import os
import re
from collections import OrderedDict
from collections.abc import Callable, Mapping
from hashlib import sha256
from pathlib import Path
from pickle import UnpicklingError
from threading import Lock
from typing import Any
from urllib.parse import urlparse

import numpy as np
import torch
from mmengine.dist import barrier, is_main_process
from mmengine.runner import CheckpointLoader
from mmengine.runner import checkpoint as mmengine_checkpoint
from safetensors.torch import load_file
from torch import Tensor
from torch.serialization import safe_globals

from mmseg_otseg import hub
from mmseg_otseg.errors import UserError

MapLocation = str | torch.device | Callable | dict[str, str] | None

PLAIN_VALUES = (str, bytes, int, float, complex, type(None))
PLAIN_TYPES = (Tensor, torch.Size, torch.dtype, torch.device, *PLAIN_VALUES)
# What mmengine would execute as Python code, to build a model from it.
CONFIGS = ("config", "cfg")
# The parts of a segmentor whose errors name the file that their weights come from.
NAMED_PARTS = ("backbone", "neck", "decode_head")


class _DType:
    """Stands in for ``numpy.dtype``: a number type and its byte order, nothing else."""

    def __init__(self, code: str, *_: Any) -> None:
        if not re.fullmatch(r"[biufc]\d{1,2}", code):
            raise UnpicklingError(f"the NumPy type {code!r} is not a number type")
        self.numpy = np.dtype(code)

    def __setstate__(self, state: tuple) -> None:
        self.numpy = self.numpy.newbyteorder(state[1])


class _Array:
    """Stands in for ``numpy.ndarray``; it can only be filled from bytes."""

    values = np.empty(0)

    def __setstate__(self, state: tuple) -> None:
        _, shape, dtype, fortran, data = state
        flat = np.frombuffer(data, dtype.numpy)
        self.values = flat.reshape(shape, order="F" if fortran else "C")


class _Ignored:
    """Stands in for objects that are not needed, such as the history of a logged value."""

    def __init__(self, *_: Any) -> None: ...

    def __setstate__(self, state: Any) -> None: ...


def _new_array(*_: Any) -> _Array:
    return _Array()


def _scalar(dtype: _DType, data: bytes) -> Any:
    return np.frombuffer(data, dtype.numpy, count=1)[0].item()


STAND_INS: list[Callable | tuple[Callable, str]] = [
    (_Array, "numpy.ndarray"),
    (_DType, "numpy.dtype"),
    # NumPy 2 renamed `core` to `_core`.
    (_new_array, "numpy.core.multiarray._reconstruct"),
    (_new_array, "numpy._core.multiarray._reconstruct"),
    (_scalar, "numpy.core.multiarray.scalar"),
    (_scalar, "numpy._core.multiarray.scalar"),
    (dict, "mmengine.config.config.ConfigDict"),
    (_Ignored, "mmengine.logging.history_buffer.HistoryBuffer"),
    (_Ignored, "builtins.getattr"),  # older versions save the methods of the history as well
]
_reading = Lock()  # the list of safe types belongs to the process, not to the thread


def read_checkpoint(path: str | os.PathLike, map_location: MapLocation = "cpu") -> dict[str, Any]:
    """Read a checkpoint of tensors and plain values; refuse anything else.

    Args:
        path: A file written by ``torch.save``, or a ``.safetensors`` file.
        map_location: As for :func:`torch.load`. A ``.safetensors`` file accepts only a device here;
            with anything else, its tensors are on the CPU.

    Returns:
        The saved dict, usually with ``state_dict`` and ``meta``, as :func:`to_plain` values; for a
        ``.safetensors`` file, the tensors by name.

    Raises:
        FileNotFoundError: If the file does not exist.
        UserError: If the file holds anything but tensors and plain values (nothing is executed),
            is damaged, or is not a checkpoint.
    """
    file = Path(path).expanduser()
    if not file.is_file():
        raise FileNotFoundError(f"The checkpoint {file} does not exist.")
    try:
        if file.suffix == ".safetensors":
            device = map_location if isinstance(map_location, str | torch.device) else "cpu"
            return load_file(file, device=str(device))
        with _reading, safe_globals(STAND_INS):
            content = torch.load(file, map_location=map_location, weights_only=True)
        content = to_plain(content)
    except Exception as error:  # a damaged file can make the reader raise anything
        foreign = re.search(r"GLOBAL (\S+) was not an allowed", str(error))
        if foreign:
            raise UserError(
                f"The checkpoint {file} was refused, and nothing in it was executed: it holds "
                f"{foreign[1]}, but only tensors and plain values (numbers, strings, lists, dicts) "
                "are read. If you trust its source, save it again with nothing else in it."
            ) from error
        reason = (str(error) or type(error).__name__).splitlines()[0][:200]
        if isinstance(error, UnpicklingError):  # torch's text advises to execute the file
            reason = "it is damaged, or not a file of torch.save"
        reason = hub.seems_to_be(file) or reason
        raise UserError(
            f"{file} cannot be read as a checkpoint: {reason}. Use an intact copy or another file."
        ) from error
    if not isinstance(content, dict):
        raise UserError(f"{file} is not a checkpoint: it holds a {type(content).__name__}.")
    return content


def check_target(path: str | os.PathLike) -> None:
    """Raise a UserError if no checkpoint can be written to a path, by its suffix or folder."""
    if Path(path).suffix == ".safetensors":
        raise UserError(
            f"a checkpoint cannot be written to {path}, because it holds more than a .safetensors "
            f"file can: name it {Path(path).stem}.pth"
        )
    if not Path(path).parent.is_dir():
        raise UserError(f"the folder {Path(path).parent}, to write {path} to, does not exist")


def to_plain(value: Any) -> Any:
    """Copy nested containers, with NumPy values as numbers and lists; tensors are not copied.

    What it returns can be saved, and read by ``torch.load(weights_only=True)`` as it stands.

    Raises:
        TypeError: If ``value`` holds an object of another type.
    """
    if isinstance(value, Mapping):
        made: dict = {key: to_plain(item) for key, item in value.items()}
        if hasattr(value, "_metadata"):  # the versions of the modules in a state dict
            made = OrderedDict(made)
            made._metadata = value._metadata  # type: ignore[attr-defined]
        return made
    if isinstance(value, np.ndarray | np.generic):
        return value.tolist()
    if isinstance(value, _Array):
        return value.values.tolist()
    if isinstance(value, _Ignored):
        return None
    if isinstance(value, PLAIN_TYPES):
        return value
    for kind in (list, tuple, set):
        if isinstance(value, kind):
            return kind(map(to_plain, value))
    raise TypeError(f"a {type(value).__name__} is neither a tensor nor a plain value")


def without_unsafe_entries(content: dict[str, Any], file: str) -> dict[str, Any]:
    """Remove from a checkpoint what would make mmengine execute code or delete files.

    Configs (``meta.config``, ``meta.cfg``, ``message_hub.runtime_info.cfg``) are dropped. Of the
    path ``best_ckpt``, which mmengine's checkpoint hook deletes once there is a better one, the
    file name remains, as ``best_file``.

    Args:
        content: What :func:`read_checkpoint` returned.
        file: Name of the checkpoint, for messages.

    Returns:
        A checkpoint with ``meta``, ``message_hub`` and ``state_dict``. A file that holds only
        named tensors becomes a ``state_dict``; any other dict without one keeps its content.
    """
    if content and all(isinstance(value, Tensor) for value in content.values()):
        content = {"state_dict": content}
    checkpoint, meta = dict(content), content.get("meta") or {}
    info = dict((content.get("message_hub") or {}).get("runtime_info") or {})
    for key in list(info):
        if key.startswith("best_ckpt") and info[key] is not None:
            info[key.replace("best_ckpt", "best_file")] = Path(str(info[key])).name
        if key == "keep_ckpt_ids":  # mmengine deletes files with these numbers in their names
            info[key] = [int(number) for number in info[key]]
        if key.startswith("best_ckpt") or key in (*CONFIGS, "last_ckpt", "validated_iter"):
            del info[key]
    checkpoint["meta"] = {key: value for key, value in meta.items() if key not in CONFIGS}
    resumed = dict.fromkeys(info, True)
    checkpoint["message_hub"] = dict(log_scalars={}, runtime_info=info, resumed_keys=resumed)
    if isinstance(content.get("state_dict"), Mapping):
        weights = OrderedDict(content["state_dict"])
        versions = getattr(content["state_dict"], "_metadata", {})
        named = {part: {**versions.get(part, {}), "file": file} for part in NAMED_PARTS}
        weights._metadata = {**versions, **named}  # type: ignore[attr-defined]
        checkpoint["state_dict"] = weights
    return checkpoint


def trained_classes(meta: Mapping[str, Any] | None) -> frozenset[str]:
    """The classes that a checkpoint, by its ``meta``, was trained on with labels; often none."""
    return frozenset((meta or {}).get("trained_classes") or ())


def load_for_mmengine(filename: str, map_location: MapLocation = None) -> dict[str, Any]:
    """Read a checkpoint for mmengine, see :func:`without_unsafe_entries`.

    Args:
        filename: A path, a URL, ``hf://OWNER/NAME[/FILE]``, or a name in one of mmengine's lists,
            such as ``open-mmlab://resnet50_v1c``. What is not here yet is downloaded.
        map_location: As for :func:`read_checkpoint`.

    Raises:
        UserError: If mmengine lists no such name, or the source is another one; the readers that
            mmengine has for these execute code in the files.
    """
    source, separator, name = filename.partition("://")
    if source in ("torchvision", "modelzoo", "openmmlab", "open-mmlab"):
        kind = "external" if "mmlab" in source else "torchvision"
        url = getattr(mmengine_checkpoint, f"get_{kind}_models")().get(name)
        if url is None:
            raise UserError(f"mmengine knows no checkpoint named {filename}")
        return load_for_mmengine(url, map_location)
    file: str | Path = filename
    if source in ("http", "https"):
        file = _download(filename)
    elif source == "hf":
        file = hub.fetch(filename)
    elif separator:
        raise UserError(f"{filename} is not read: copy the file here and give its path")
    return without_unsafe_entries(read_checkpoint(file, map_location), filename)


def _download(url: str) -> Path:
    """The file at a URL in torch's hub folder, downloaded on first use.

    Its name gets a digest of the URL, because other URLs may end in the same name.
    """
    name, digest = Path(urlparse(url).path), sha256(url.encode()).hexdigest()[:12]
    file = Path(torch.hub.get_dir(), "checkpoints", f"{name.stem}-{digest}{name.suffix}")
    for turn in (is_main_process(), True):  # the others wait; on another machine they download
        if turn and not file.is_file():
            file.parent.mkdir(parents=True, exist_ok=True)
            torch.hub.download_url_to_file(url, str(file))
        barrier()
    return file


# All sources that mmengine knows, since each has a reader of its own, and ours.
SOURCES = ["", "http://", "https://", "modelzoo://", "torchvision://", "open-mmlab://"]
SOURCES += ["openmmlab://", "mmcls://", "pavi://", r"(\S+\:)?s3://", r"(\S+\:)?petrel://", "hf://"]
CheckpointLoader.register_scheme(SOURCES, load_for_mmengine, force=True)
