"""Images that claim more pixels than they hold."""

from __future__ import annotations

import struct
import zlib


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
