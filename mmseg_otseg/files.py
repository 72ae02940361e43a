"""Writes files completely or not at all; imports the standard library alone."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from threading import get_ident

UNFINISHED = ".part"  # suffix of a file that is still being written
KEPT = 40  # characters of the file's name in the temporary one, which must not get too long


@contextmanager
def write_atomically(file: Path, fsync: bool = True) -> Iterator[Path]:
    """Write ``file`` completely, or leave it as it was if writing is interrupted.

    Args:
        file: The file; missing folders are created.
        fsync: Whether to wait until the content is on the disk before the file gets its name. It
            then survives a failure of the machine too, not only of the process.

    Yields:
        The temporary path to write to, in the same folder. Each process and thread has its own.

    Raises:
        OSError: Naming the file, if it cannot be written, for example to a full disk.
    """
    part = file.with_name(f".{file.name[:KEPT]}.{os.getpid()}.{get_ident()}{UNFINISHED}")
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        yield part
        if fsync:
            with part.open("rb+") as written:
                os.fsync(written.fileno())
        part.replace(file)
    except OSError as error:
        raise OSError(error.errno, f"{error.strerror or error}, while writing", str(file)) from None
    finally:
        with suppress(OSError):
            part.unlink(missing_ok=True)  # frees the space of an incomplete file
