"""Reads the pickle and the storages in files of ``torch.save`` and TorchScript.

Every size declared in a file is compared with the file's size before memory is allocated.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable
from struct import Struct
from typing import BinaryIO
from zipfile import ZIP_STORED, ZipFile, is_zipfile
from zlib import crc32

import torch
from torch import Tensor
from torch.serialization import default_restore_location

from .pickle_tree import Stored, parse_pickle

MapLocation = str | torch.device | Callable | dict[str, str] | None

KINDS = {
    "HalfStorage": torch.float16,
    "FloatStorage": torch.float32,
    "DoubleStorage": torch.float64,
    "BFloat16Storage": torch.bfloat16,
    "ComplexFloatStorage": torch.complex64,
    "ComplexDoubleStorage": torch.complex128,
    "CharStorage": torch.int8,
    "ShortStorage": torch.int16,
    "IntStorage": torch.int32,
    "LongStorage": torch.int64,
    "ByteStorage": torch.uint8,
    "BoolStorage": torch.bool,
    "UntypedStorage": torch.uint8,
}
BEFORE_TORCH_1_6 = b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."  # the first pickle, a magic number
LOCAL_HEADER = Struct("<4s5H3I2H")  # of an archive member: signature, ..., two lengths


class TorchFile:
    """A file of ``torch.save`` (any version) or ``torch.jit.save``, read without executing it.

    Args:
        stream: The file, open for reading in binary mode.
        map_location: Where to put the tensors, as in :func:`torch.load`.

    Attributes:
        tree: Content of its pickle; see :func:`~mmseg_otseg.files.pickle_tree.parse_pickle`.
        is_program: Whether it is a TorchScript program.
        size: Size of the file in bytes.

    Raises:
        ValueError: If the file is of neither kind, declares more bytes than it has, or is
            compressed, which torch never does.
        BadZipFile: If it is a damaged archive.
    """

    def __init__(self, stream: BinaryIO, map_location: MapLocation = None) -> None:
        self._stream, self._map_location = stream, map_location
        self.size = self._unread = stream.seek(0, 2)
        self._storages: dict[tuple[str, str], Tensor] = {}
        self._archive: ZipFile | None = None
        self._offsets: dict[str, int] = {}
        self.is_program = False
        stream.seek(0)
        start = stream.read(len(BEFORE_TORCH_1_6))
        if start == BEFORE_TORCH_1_6:
            self._open_old()
        elif is_zipfile(stream):
            self._open_archive()
        else:
            cut = start.startswith(b"PK")
            raise ValueError("it is truncated" if cut else "it was not written by torch.save")

    def storage(self, stored: Stored) -> Tensor:
        """The values of a storage, shape (count,), on the device given by ``map_location``."""
        known = stored.name, stored.kind
        if known not in self._storages:
            dtype = KINDS.get(stored.kind)
            if dtype is None:
                raise ValueError(f"it holds a {stored.kind}, whose values are not plain numbers")
            size = stored.count * dtype.itemsize
            raw = self._place(self._read_storage(stored.name, size), stored.location)
            # With bytes other than 0 and 1 in a bool tensor, torch counts elements wrongly.
            self._storages[known] = raw.ne(0) if dtype is torch.bool else raw.view(dtype)
        return self._storages[known]

    def _open_archive(self) -> None:
        self._archive = ZipFile(self._stream)
        inside = [name for name in self._archive.namelist() if name.count("/") == 1]
        pickles = [name for name in inside if name.endswith("/data.pkl")]
        if len(pickles) != 1:
            raise ValueError("it is an archive, but torch.save did not write it")
        self._folder = pickles[0].removesuffix("data.pkl")
        self.is_program = f"{self._folder}constants.pkl" in inside
        if f"{self._folder}byteorder" in inside:
            order = self._read_member("byteorder").numpy().tobytes().decode("ascii", "replace")
            if order != sys.byteorder:
                raise ValueError(f"its numbers are {order}-endian, but this machine's are not")
        self.tree, _ = parse_pickle(self._read_member("data.pkl").numpy().tobytes())

    def _open_old(self) -> None:
        """Read five pickles (3 headers, the tree, the storage names) and find the storages."""
        self._stream.seek(0)
        for _ in range(3):
            parse_pickle(self._stream)
        self.tree, stored = parse_pickle(self._stream)
        names, _ = parse_pickle(self._stream)
        for name in names:
            count = int.from_bytes(self._stream.read(8), "little")
            item = stored.get(name)
            if item is None or item.count != count or item.kind not in KINDS:
                raise ValueError(f"its storage {name!r} differs from its pickle's declaration")
            self._offsets[name] = self._stream.tell()
            self._stream.seek(count * KINDS[item.kind].itemsize, 1)

    def _read_storage(self, name: str, size: int) -> Tensor:
        if self._archive is None:
            return self._read(self._offsets[name], size)
        raw = self._read_member(f"data/{name}")
        if len(raw) != size:
            raise ValueError(f"its storage {name!r} has {len(raw)} bytes instead of {size}")
        return raw

    def _read_member(self, name: str) -> Tensor:
        """The bytes of an archive member, read without an extra copy."""
        assert self._archive is not None
        info = self._archive.getinfo(self._folder + name)
        if info.compress_type != ZIP_STORED or info.file_size != info.compress_size:
            raise ValueError(f"its member {info.filename} is compressed, which torch never does")
        self._stream.seek(info.header_offset)
        signature, *_, name_length, extra_length = LOCAL_HEADER.unpack(
            self._stream.read(LOCAL_HEADER.size)
        )
        if signature != b"PK\3\4":
            raise ValueError("it is damaged")
        raw = self._read(self._stream.tell() + name_length + extra_length, info.file_size)
        if crc32(raw.numpy().data) != info.CRC:
            raise ValueError(f"its member {info.filename} is damaged")
        return raw

    def _read(self, offset: int, size: int) -> Tensor:
        """Read ``size`` bytes as a tensor; all reads together may not exceed the file's size."""
        self._unread -= size
        if self._unread < 0:
            raise ValueError("it declares more bytes than it has")
        raw = torch.empty(size, dtype=torch.uint8)
        self._stream.seek(offset)
        if self._stream.readinto(raw.numpy()) != size:  # type: ignore[attr-defined]
            raise ValueError("it is truncated")
        return raw

    def _place(self, raw: Tensor, location: str) -> Tensor:
        """Move bytes to the device given by ``map_location``, as :func:`torch.load` does."""
        target = self._map_location
        storage = raw.untyped_storage()
        placed = None
        if callable(target):
            placed = target(storage, location)
        elif isinstance(target, dict):
            location = target.get(location, location)
        elif target is not None:
            location = str(target)
        if placed is None:
            if not re.fullmatch(r"[a-z]+(:\d{1,3})?", location) or location == "meta":
                raise ValueError(f"it was saved from the unknown device {location!r}")
            placed = default_restore_location(storage, location)
        if placed.device == raw.device:
            return raw
        moved = torch.empty(0, dtype=torch.uint8, device=placed.device)
        return moved.set_(placed, 0, raw.shape, (1,))
