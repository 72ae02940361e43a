"""The work folder of a run: its default name, its lock and its latest checkpoint."""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import shlex
import socket
import sys
from collections.abc import Iterator
from pathlib import Path

from mmengine.logging import print_log

from mmseg_otseg.engine.checkpoint import read_checkpoint
from mmseg_otseg.errors import UserError

try:
    import fcntl
except ImportError:  # Windows has no such locks
    fcntl = None  # type: ignore[assignment]

UNFINISHED = ".part"  # suffix of a file that is still being written


def default_work_dir(config: str | os.PathLike) -> str:
    """The default work folder of a config: ``work_dirs/<folder of the file>/<file>``.

    If only the file name were used, ``otseg/voc_512.py`` and ``zegot/voc_512.py`` would share a
    folder.
    """
    file = Path(config).resolve()
    return str(Path("work_dirs", file.parent.name, file.stem))


def latest_checkpoint(work_dir: str | os.PathLike) -> str | None:
    """Find the checkpoint to resume from, even if the folder was moved or copied.

    This is the checkpoint named in ``last_checkpoint``. A file of that name in this folder takes
    precedence over the recorded path. If neither can be read, the most recently written readable
    ``iter_*.pth`` or ``epoch_*.pth`` is used instead, with a warning.

    Returns:
        The path; None if the folder holds no checkpoint yet.

    Raises:
        UserError: If the folder holds checkpoints or names one, but none can be resumed from.
    """
    folder = Path(work_dir)
    pointer = folder / "last_checkpoint"
    last = pointer.read_text(errors="replace").strip() if pointer.is_file() else ""
    # A copied folder resumes from its own checkpoint, not from the one in the original folder.
    named = [folder / Path(last).name, Path(last)] if last else []
    others = [
        file
        for pattern in ("iter_*.pth", "epoch_*.pth")
        for file in folder.glob(pattern)
        if file.is_file()
    ]
    others.sort(key=lambda file: file.stat().st_mtime_ns, reverse=True)
    problems: dict[str, str] = {}
    for file in dict.fromkeys([*(file for file in named if _is_file(file)), *others]):
        try:
            missing = {"meta", "optimizer", "message_hub"} - set(read_checkpoint(file, "cpu"))
            if not missing:
                break
            problems[str(file)] = f"it lacks {', '.join(sorted(missing))}"
        except (ValueError, TypeError) as error:
            problems[str(file)] = str(error)
    else:
        if not problems and not last:
            return None
        why = "; ".join(problems.values()) or f"{pointer.name} names '{last}', which does not exist"
        raise UserError(
            f"{folder} holds no checkpoint to resume from: {why}. Name one with --resume PATH, or "
            "remove these files to start from the beginning."
        )
    for reason in problems.values():
        print_log(f"Skipped a checkpoint: {reason}", logger="current", level=logging.WARNING)
    if file not in named:
        print_log(
            f"{pointer} is missing or names no readable checkpoint: resuming from {file}, the "
            "newest readable one.",
            logger="current",
            level=logging.WARNING,
        )
    return str(file)


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except OSError:  # the content of a damaged pointer can be too long for a file name
        return False


@contextlib.contextmanager
def whole_file(file: Path) -> Iterator[Path]:
    """Write ``file`` completely, or leave it as it was if writing is interrupted.

    Yields:
        The temporary path to write to. It is renamed to ``file`` once it is completely on disk.
    """
    part = file.with_name(file.name + UNFINISHED)
    yield part
    _sync(part)
    part.replace(file)
    if os.name != "nt":  # Windows cannot open a folder
        _sync(file.parent)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDWR if os.name == "nt" else os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def lock_folder(folder: str | os.PathLike) -> int | None:
    """Lock the folder for this process until it ends or closes the returned descriptor.

    The kernel releases the lock however the process ends. A process that already holds the lock can
    take it again.

    Returns:
        A file descriptor; None on Windows and on file systems without locks.

    Raises:
        BlockingIOError: If another process holds the lock; the message names it.
        OSError: If the lock file cannot be opened, for example because it is a symbolic link.
    """
    if fcntl is None:
        return None
    file = Path(folder) / "train.lock"
    # The file is emptied below; a symbolic link would lead to a file outside the folder.
    descriptor = os.open(file, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK, 0o644)
    try:
        # Not flock: data loader workers would inherit it and can outlive a killed process.
        fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        holder = os.read(descriptor, 4096).decode(errors="replace").strip() or "another process"
        os.close(descriptor)
        if error.errno not in (errno.EACCES, errno.EAGAIN):
            print_log(f"{folder} cannot be locked: {error}", "current", logging.WARNING)
            return None
        raise BlockingIOError(
            f"{folder} is in use by another training run: {holder}. Wait until it ends, stop it, "
            "or choose another folder with --work-dir."
        ) from None
    os.truncate(descriptor, 0)
    command = shlex.join(sys.argv)
    os.write(descriptor, f"process {os.getpid()} on {socket.gethostname()} ({command})".encode())
    return descriptor
