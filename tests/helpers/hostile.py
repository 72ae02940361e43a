"""Files that try to run code when they are read, of another kind, or larger than they are."""

from __future__ import annotations

import pickle
import struct
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch


class Call:
    """Pickled as a call of a function, which unpickling would execute."""

    def __init__(self, function: Callable, *arguments: Any, state: Any = None) -> None:
        self.reduced = (function, arguments) if state is None else (function, arguments, state)

    def __reduce__(self) -> tuple:
        return self.reduced


def hostile_files(folder: Path, marker: Path) -> dict[str, Path]:
    """Write files that must be refused, by what they are; ``marker`` is what they would create."""
    code = Call(exec, f"open({str(marker)!r}, 'w').close()")
    array: Any = np.array([1]).__reduce__()[0]
    pointers = Call(array, np.ndarray, (0,), b"b", state=(1, (1,), np.dtype("O"), False, [0]))
    kinds = ("weights", "old", "pointers", "program", "half", "picture")
    files = {kind: folder / f"{kind}.pth" for kind in kinds}
    torch.save(dict(state_dict=dict(weight=code)), files["weights"])
    torch.save(code, files["old"], _use_new_zipfile_serialization=False)
    torch.save(dict(state_dict=dict(weight=pointers)), files["pointers"])
    with zipfile.ZipFile(files["program"], "w") as archive:  # by its members, a TorchScript program
        archive.writestr("a/data.pkl", pickle.dumps(code, 2))
        archive.writestr("a/constants.pkl", pickle.dumps(code, 2))
        archive.writestr("a/version", "3\n")
    files["half"].write_bytes(files["pointers"].read_bytes()[:700])
    files["picture"].write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(50))
    return files


def png_of(width: int, height: int, gray_bits: int | None = None) -> bytes:
    """A few bytes that claim to be an image of any size, in color or in gray of so many bits."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return (
            struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        )

    header = struct.pack(">IIBBBBB", width, height, gray_bits or 8, 0 if gray_bits else 2, 0, 0, 0)
    pixels = zlib.compress(bytes(1000))
    start = b"\x89PNG\r\n\x1a\n"
    return start + chunk(b"IHDR", header) + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")
