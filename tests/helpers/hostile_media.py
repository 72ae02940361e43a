"""Images, label maps and text embeddings of a few kilobytes that try to do harm."""

from __future__ import annotations

import io
import os
import pickle
import struct
import zlib
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
from PIL import Image

from tests.helpers.claimed_size import png_of

Place = Callable[[Path], object]


def hostile_media(marker: Path) -> dict[str, Place]:
    """Functions that write each hostile file to a given path, by name."""
    contents = {
        "png_of_400_million": png_of(20_000, 20_000),
        "png_of_10_billion": png_of(100_000, 100_000),
        "png_with_text": _png_with(b"zTXt", b"Comment\0\0" + zlib.compress(bytes(2**28))),
        "png_with_profile": _png_with(b"iCCP", b"a\0\0" + zlib.compress(bytes(2**28))),
        "png_cut": _png(np.zeros((64, 64), np.uint8))[:-30],
        "tiff": _tiff(2**16, 2**16),
        "gif": b"GIF89a" + struct.pack("<HH", 65535, 65535) + b"\xf0\0\0" + bytes(6) + b",",
        "eps": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n"
        + f"({marker}) (w) file\n".encode(),
        "svg": b'<svg xmlns="http://www.w3.org/2000/svg"><image href="file:///dev/zero"/></svg>',
        "npy_objects": _npy("|O", (1,), pickle.dumps([{}])),
        "npy_size": _npy("<f4", (2**40, 2), bytes(8)),
        "npy_nan": _npy("<f4", (2, 2), struct.pack("<4f", *[float("nan")] * 4)),
        "npy_zero": _npy("<f4", (2, 2), bytes(16)),
        "npy_header": b"\x93NUMPY\x01\x00\xff\xff" + b"(" * 60_000,
    }
    places: dict[str, Place] = {}
    for name, content in contents.items():
        places[name] = partial(_write, content)
    places["pipe"] = os.mkfifo
    places["device"] = lambda path: path.symlink_to("/dev/zero")
    places["folder"] = lambda path: path.mkdir()
    places["missing"] = lambda path: None
    places["circle"] = lambda path: path.symlink_to(path.name)
    return places


def _write(content: bytes, path: Path) -> None:
    path.write_bytes(content)


def _png(values: np.ndarray) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(values).save(stream, "PNG")
    return stream.getvalue()


def _png_with(kind: bytes, data: bytes) -> bytes:
    """A PNG of 8 x 8 with one chunk more, and no pixels."""
    whole = _png(np.zeros((8, 8), np.uint8))
    place = whole.index(b"IDAT") - 4
    chunk = struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
    return whole[:place] + chunk + whole[-12:]


def _tiff(width: int, height: int) -> bytes:
    entries = {256: width, 257: height, 258: 8, 259: 1, 262: 1, 273: 8, 277: 1, 278: height}
    tags = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in entries.items())
    return struct.pack("<2sHIH", b"II", 42, 8, len(entries)) + tags + bytes(4)


def _npy(kind: str, shape: tuple[int, ...], data: bytes) -> bytes:
    header = f"{{'descr': '{kind}', 'fortran_order': False, 'shape': {shape}, }}".encode()
    header += b" " * (-(len(header) + 11) % 64) + b"\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header + data
