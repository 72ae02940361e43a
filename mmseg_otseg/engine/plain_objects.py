"""What an mmengine checkpoint holds besides tensors, rebuilt from checked plain values.

``torch.load(weights_only=True)`` lets a file call nothing but what is allow-listed by name. The
checkpoints of mmengine name numpy's rebuilding functions, ``HistoryBuffer`` and, through its
methods, ``getattr``. Allow-listing these as they are would be a way in: ``getattr`` reaches the
globals of any function, and a numpy dtype takes its flags from the file, so that bytes of the
file's choosing would be read as object pointers. Each name is therefore given to a stand-in that
accepts plain numbers only, and :func:`restore` puts the real objects in place afterwards.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import numpy as np
from mmengine.config import ConfigDict
from mmengine.logging import HistoryBuffer


class PlainDtype:
    """Stands for ``numpy.dtype``: a bool or number type, without fields, flags or metadata."""

    def __init__(self, code: str, align: bool = False, copy: bool = True) -> None:
        if not isinstance(code, str) or not re.fullmatch(r"[biufc]\d{1,2}", code):
            raise ValueError(f"the numpy type {code!r} is no plain number")
        self.dtype = np.dtype(code)

    def __setstate__(self, state: tuple) -> None:
        _, order, *rest = state
        if order not in ("<", ">", "|", "=") or rest != [None, None, None, -1, -1, 0]:
            raise ValueError(f"the numpy type {self.dtype} brings {rest}, it is no plain number")
        self.dtype = self.dtype.newbyteorder(order)


class PlainArray(np.ndarray):
    """Stands for ``numpy.ndarray``: filled from bytes of a :class:`PlainDtype`."""

    def __setstate__(self, state: tuple) -> None:
        version, shape, dtype, fortran, data = state
        if not isinstance(dtype, PlainDtype) or not isinstance(data, bytes):
            raise ValueError("a numpy array brings something else than plain numbers")
        super().__setstate__((version, shape, dtype.dtype, fortran, data))


class History:
    """Stands for ``HistoryBuffer``: its two arrays and its length limit."""

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.log_history = state["_log_history"]
        self.count_history = state["_count_history"]
        self.max_length = int(state["max_length"])

    def restore(self) -> HistoryBuffer:
        return HistoryBuffer(
            restore(self.log_history), restore(self.count_history), self.max_length
        )


def empty_array(subtype: type, shape: tuple, code: bytes) -> PlainArray:
    """Stands for numpy's ``_reconstruct``: the array that a state is then set on."""
    if subtype is not PlainArray:
        raise ValueError(f"an array of the class {subtype} is no plain array")
    return np.empty(0, np.int8).view(PlainArray)


def scalar(dtype: PlainDtype, data: bytes) -> np.generic:
    """Stands for numpy's ``scalar``."""
    return np.frombuffer(data, dtype.dtype, count=1)[0]


def history_method(owner: type, name: str) -> None:
    """Stands for ``getattr``, with which a history buffer names its own statistics.

    They belong to the class, so nothing needs to be taken from the file.
    """
    if owner is not History or name not in ("min", "max", "mean", "current"):
        raise ValueError(f"getattr({owner}, {name!r}) is no method of a history buffer")


def empty_bytes() -> bytes:
    """Stands for ``bytes``, which pickle calls to write an empty array."""
    return b""


#: (stand-in, name in the file) as ``torch.serialization.add_safe_globals`` takes them. numpy 2
#: renamed ``numpy.core``, and files of either are read with either.
PLAIN_GLOBALS: list[tuple[Callable, str]] = [
    (PlainDtype, "numpy.dtype"),
    (PlainArray, "numpy.ndarray"),
    (empty_array, "numpy.core.multiarray._reconstruct"),
    (empty_array, "numpy._core.multiarray._reconstruct"),
    (scalar, "numpy.core.multiarray.scalar"),
    (scalar, "numpy._core.multiarray.scalar"),
    (empty_bytes, "builtins.bytes"),
    (history_method, "builtins.getattr"),
    (History, "mmengine.logging.history_buffer.HistoryBuffer"),
    (ConfigDict, "mmengine.config.config.ConfigDict"),
]


def restore(value: Any) -> Any:
    """Put the real objects where the stand-ins are, in place inside dicts and lists.

    Args:
        value: What ``torch.load`` returned under :data:`PLAIN_GLOBALS`.

    Returns:
        The same tree with numpy arrays and history buffers.
    """
    if isinstance(value, PlainArray):
        return value.view(np.ndarray)
    if isinstance(value, History):
        return value.restore()
    if isinstance(value, PlainDtype):
        return value.dtype
    if isinstance(value, dict):
        for key in value:
            value[key] = restore(value[key])
    elif isinstance(value, list):
        value[:] = [restore(item) for item in value]
    elif type(value) is tuple:
        return tuple(restore(item) for item in value)
    return value
