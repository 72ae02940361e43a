"""Makes the values that a tree of :mod:`~mmseg_otseg.files.pickle_tree` describes.

A file may hold tensors, numbers, text, containers, arrays of numbers, and the ``HistoryBuffer`` and
``ConfigDict`` objects of mmengine's checkpoints. Each is made here from checked parts; an array,
for example, from its shape, a plain number type and bytes. Anything else is refused.
"""

from __future__ import annotations

import math
import re
from collections import Counter, OrderedDict
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from mmengine.config import ConfigDict
from mmengine.logging import HistoryBuffer
from torch import Tensor, nn

from .pickle_tree import Call, ForeignObjectError, Name, Stored, check_key

PLAIN_DTYPE = re.compile(r"(u?int|float|bfloat|complex)\d|bool$")
DTYPES = {
    f"torch.{name}": value
    for name, value in vars(torch).items()
    if isinstance(value, torch.dtype) and PLAIN_DTYPE.match(name)
}

SHARED_AT_MOST = 16


class PlainValues:
    """Makes the values of one tree; an object with several references is made once.

    Args:
        storage: Returns the values of a storage, shape (count,).
        size: Size of the file in bytes. All tensors together may have at most ``SHARED_AT_MOST``
            times as many bytes; they can have more than the file, because tensors can share a
            storage.
    """

    def __init__(self, storage: Callable[[Stored], Tensor], size: int) -> None:
        self._storage = storage
        self._left = SHARED_AT_MOST * size
        self._made: dict[int, Any] = {}
        self._makers: dict[str, Callable[[Call], Any]] = {
            "collections.OrderedDict": self._ordered_dict,
            "mmengine.config.config.ConfigDict": self._config_dict,
            "mmengine.logging.history_buffer.HistoryBuffer": self._history,
            "numpy.dtype": self._numpy_dtype,
        }
        for core in ("core", "_core"):  # renamed in NumPy 2; both names are accepted
            self._makers[f"numpy.{core}.multiarray._reconstruct"] = self._array

    def make(self, node: Any) -> Any:
        """The value of a node of the tree.

        Raises:
            ForeignObjectError: If a file may not hold such an object.
            ValueError: If the parts of an object do not fit together, or all tensors together have
                too many bytes.
        """
        if node is None or isinstance(node, (str, int, float)):
            return node
        if id(node) not in self._made:
            self._made[id(node)] = self._make(node)
        return self._made[id(node)]

    def _make(self, node: Any) -> Any:
        if isinstance(node, (list, tuple)):
            return type(node)(self.make(item) for item in node)
        if isinstance(node, dict):
            return {key: self.make(value) for key, value in node.items()}
        if isinstance(node, Stored):
            return self._storage(node)
        if isinstance(node, Name) and node.path in DTYPES:
            return DTYPES[node.path]
        if isinstance(node, Call):
            path = node.function.path
            if path in self._makers:
                return self._makers[path](node)
            if path in FUNCTIONS and node.state is None and not node.items:
                return self._count(_call(path, self.make(node.arguments)))
            raise ForeignObjectError(path)
        raise ForeignObjectError(node.path)

    def _count(self, made: Any) -> Any:
        if isinstance(made, Tensor):
            self._left -= made.numel() * made.element_size()
            if self._left < 0:
                raise ValueError(f"its tensors are more than {SHARED_AT_MOST} times its size")
        return made

    def _ordered_dict(self, call: Call) -> OrderedDict:
        made: OrderedDict = OrderedDict()
        pairs = self.make(call.arguments[0]) if call.arguments else []
        for key, value in [*pairs, *((key, self.make(value)) for key, value in call.items)]:
            check_key(key)
            made[key] = value
        if isinstance(call.state, dict) and "_metadata" in call.state:  # of a state dict
            made._metadata = self.make(call.state["_metadata"])  # type: ignore[attr-defined]
        return made

    def _config_dict(self, call: Call) -> ConfigDict:
        content = dict(self.make(call.arguments[0])) if call.arguments else {}
        content.update((key, self.make(value)) for key, value in call.items)
        return ConfigDict(content)

    def _history(self, call: Call) -> HistoryBuffer:
        state = call.state if isinstance(call.state, dict) else {}
        parts = [self.make(state.get(name)) for name in ("_log_history", "_count_history")]
        length = state.get("max_length")
        if not all(isinstance(part, np.ndarray) and part.ndim == 1 for part in parts):
            raise ValueError("its history of a logged value is not a list of numbers")
        if not isinstance(length, int) or length < 1:
            raise ValueError(f"its history of a logged value has the length {str(length)[:20]}")
        return HistoryBuffer(*parts, max_length=length)

    def _numpy_dtype(self, call: Call) -> np.dtype:
        code, *_ = call.arguments
        _, order, *rest = call.state
        plain = isinstance(code, str) and re.fullmatch(r"[biufc]\d{1,2}", code)
        # With other flags, bytes in the file could be interpreted as pointers to objects.
        if not plain or order not in ("<", ">", "|", "=") or rest != [None, None, None, -1, -1, 0]:
            raise ValueError(f"its NumPy type {code!r} is not a plain number type")
        return np.dtype(code).newbyteorder(order)

    def _array(self, call: Call) -> np.ndarray:
        kind = call.arguments[0]
        if not isinstance(kind, Name) or kind.path != "numpy.ndarray":
            raise ForeignObjectError(getattr(kind, "path", "an array of no class"))
        _, shape, dtype, fortran, data = self.make(call.state)
        flat = _numbers(dtype, data, math.prod(_sizes(shape)))
        return flat.reshape(shape, order="F" if fortran else "C")


def _call(path: str, arguments: tuple) -> Any:
    try:
        return FUNCTIONS[path](*arguments)
    except (TypeError, AttributeError) as error:
        raise ValueError(f"its {path} has arguments that do not fit") from error


def _numbers(dtype: Any, data: Any, count: int) -> np.ndarray:
    """``count`` numbers from bytes, shape (count,), in the machine's byte order."""
    if not isinstance(dtype, np.dtype) or not isinstance(data, bytes):
        raise ValueError("its NumPy array holds something other than plain numbers")
    if len(data) != count * dtype.itemsize:
        raise ValueError(f"its NumPy array has {len(data)} bytes for {count} numbers of {dtype}")
    numbers = np.array(np.frombuffer(data, dtype)) if data else np.empty(0, dtype)
    if dtype.kind == "b":  # bytes other than 0 and 1 would make an invalid bool
        return numbers.view(np.uint8) != 0
    return numbers.astype(dtype.newbyteorder("="))


def _numpy_scalar(dtype: Any, data: Any) -> np.generic:
    return _numbers(dtype, data, 1)[0]


def _tensor(flat: Any, offset: Any, size: Any, stride: Any, grad: Any, *rest: Any) -> Tensor:
    """A tensor of ``size`` over the storage ``flat``, like ``torch._utils._rebuild_tensor_v2``."""
    sizes, steps = _sizes(size), _sizes(stride)
    (start,) = _sizes((offset,))
    count = math.prod(sizes)
    last = start + sum((size - 1) * step for size, step in zip(sizes, steps, strict=True))
    if not isinstance(flat, Tensor) or count > len(flat) or (count and last >= len(flat)):
        raise ValueError(f"its tensor of shape {tuple(sizes)} is larger than its storage")
    tensor = torch.as_strided(flat, sizes, steps, start if count else 0)
    return tensor.requires_grad_() if grad is True else tensor


def _typed_tensor(
    flat: Any, offset: Any, size: Any, stride: Any, grad: Any, hooks: Any, dtype: Any, *rest: Any
) -> Tensor:
    """Like :func:`_tensor`, over a storage of bytes that hold numbers of ``dtype``."""
    if not isinstance(flat, Tensor) or not isinstance(dtype, torch.dtype):
        raise ValueError("its tensor has no type")
    numbers = flat.ne(0) if dtype is torch.bool else flat.view(dtype)
    return _tensor(numbers, offset, size, stride, grad)


def _parameter(data: Any, grad: Any, *rest: Any) -> nn.Parameter:
    if not isinstance(data, Tensor):
        raise ValueError("its parameter is not a tensor")
    return nn.Parameter(data, requires_grad=grad is True)


def _sizes(values: Any) -> Sequence[int]:
    """Check that sizes are integers that an array can have."""
    if not isinstance(values, tuple) or not all(
        type(value) is int and 0 <= value < 2**40 for value in values
    ):
        raise ValueError(f"its array or tensor has invalid sizes: {str(values)[:80]}")
    return values


def _set(values: Any = ()) -> set:
    for value in values:
        check_key(value)
    return set(values)


def _encode(text: Any, encoding: Any) -> bytes:
    if encoding not in ("latin1", "latin-1"):
        raise ValueError(f"its bytes are encoded as {encoding!r}")
    return text.encode("latin1")


def _device(kind: Any, index: Any = None) -> torch.device:
    return torch.device(kind if index is None else f"{kind}:{int(index)}")


FUNCTIONS: dict[str, Callable] = {
    "_codecs.encode": _encode,
    "builtins.bytes": lambda: b"",  # how pickle writes empty bytes
    "builtins.complex": complex,
    "builtins.frozenset": lambda values=(): frozenset(_set(values)),
    "builtins.set": _set,
    "collections.Counter": lambda counts=(): Counter(dict(counts)),
    "numpy._core.multiarray.scalar": _numpy_scalar,
    "numpy.core.multiarray.scalar": _numpy_scalar,
    "torch.Size": lambda sizes=(): torch.Size(_sizes(sizes)),
    "torch._utils._rebuild_parameter": _parameter,
    "torch._utils._rebuild_parameter_with_state": _parameter,
    "torch._utils._rebuild_tensor_v2": _tensor,
    "torch._utils._rebuild_tensor_v3": _typed_tensor,
    "torch.device": _device,
}
