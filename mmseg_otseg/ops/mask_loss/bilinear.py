"""Bilinear resizing along one axis, as a matrix and as the two inputs that make each output."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from functools import lru_cache

import torch
import torch.nn.functional as F
from torch import Tensor


class BilinearAxis:
    """How ``torch.nn.functional.interpolate`` resizes one axis bilinearly.

    Args:
        size: Length of the axis before.
        new_size: Length after.
        align_corners: As in ``interpolate``.
        dtype: The type to compute with.

    Attributes:
        matrix: Weights, shape (new_size, size).
        index: Inputs that each output is made of, shape (taps, new_size), int64; taps is 1 or 2.
        weight: Their weights, same shape.
    """

    def __init__(self, size: int, new_size: int, align_corners: bool, dtype: torch.dtype) -> None:
        self.size, self.new_size = size, new_size
        unit = torch.eye(size, dtype=dtype)[None]
        matrix = F.interpolate(unit, new_size, mode="linear", align_corners=align_corners)[0].T
        used = (matrix != 0).int()
        self._first = used.argmax(1).tolist()
        self._end = (size - used.flip(1).argmax(1)).tolist()
        weight, index = matrix.topk(min(2, size), dim=1)
        index = index.where(weight != 0, index[:, :1])  # inside the range that `bands` gives
        self.matrix = matrix.contiguous()
        self.index, self.weight = index.T.contiguous(), weight.T.contiguous()

    def to(self, device: torch.device) -> BilinearAxis:
        """The same on a device."""
        moved = copy.copy(self)
        for name in ("matrix", "index", "weight"):
            setattr(moved, name, getattr(self, name).to(device))
        return moved

    def resize(self, x: Tensor) -> Tensor:
        """Resize the last axis: (..., size) to (..., new_size)."""
        return x if self.size == self.new_size else F.linear(x, self.matrix)

    def resize_back(self, x: Tensor) -> Tensor:
        """The adjoint of :meth:`resize`, for gradients: (..., new_size) to (..., size)."""
        return x if self.size == self.new_size else x @ self.matrix

    def bands(self, length: int) -> Iterator[tuple[slice, slice]]:
        """Outputs in bands of at most ``length``, each with the range of inputs it is made of."""
        for start in range(0, self.new_size, length):
            stop = min(start + length, self.new_size)
            yield slice(start, stop), slice(self._first[start], self._end[stop - 1])


@lru_cache(maxsize=32)
def bilinear_axis(
    size: int, new_size: int, align_corners: bool, dtype: torch.dtype, device: torch.device
) -> BilinearAxis:
    """A :class:`BilinearAxis` on a device. It is cached, because its tables are made on the host.

    Args:
        size, new_size, align_corners, dtype: As in :class:`BilinearAxis`.
        device: Where to resize.
    """
    with torch.inference_mode(False):  # or training could not use tables made in testing
        if device.type == "cpu":
            return BilinearAxis(size, new_size, align_corners, dtype)
        host = bilinear_axis(size, new_size, align_corners, dtype, torch.device("cpu"))
        return host.to(device)
