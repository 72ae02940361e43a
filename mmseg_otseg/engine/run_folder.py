"""The folder of a run: how it is called, who writes into it, where its newest checkpoint is."""

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

try:
    import fcntl
except ImportError:  # Windows: no lock there
    fcntl = None  # type: ignore[assignment]

UNFINISHED = ".part"  # added to the name of a file that is not written to its end


def default_work_dir(config: str | os.PathLike) -> str:
    """The work folder of a config that names none: ``work_dirs/<folder of the file>/<file>``.

    With the file's name alone, ``otseg/voc_512.py`` and ``zegot/voc_512.py`` would share a folder.
    """
    file = Path(config).resolve()
    return str(Path("work_dirs", file.parent.name, file.stem))


def latest_checkpoint(work_dir: str | os.PathLike) -> str | None:
    """The checkpoint from which a run goes on, also when its folder was moved or copied.

    That is the one which ``last_checkpoint`` names, in this folder if it is there. If it is missing
    or damaged, it is the most recently written of the other ``iter_*.pth`` and ``epoch_*.pth`` that
    can be read; the log says so.

    Returns:
        The path; None if the folder holds no checkpoint yet.

    Raises:
        ValueError: There should be a checkpoint, but none can be read.
    """
    folder = Path(work_dir)
    pointer = folder / "last_checkpoint"
    last = pointer.read_text(errors="replace").strip() if pointer.is_file() else ""
    # A copy of the folder goes on from its own checkpoint, not from the one of the original.
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
        why = "; ".join(problems.values()) or f"{pointer.name} names '{last}', which is not there"
        raise ValueError(
            f"{folder} holds no checkpoint to resume from: {why}. Give one with --resume PATH, or "
            "remove these files to start from the beginning."
        )
    for reason in problems.values():
        print_log(f"Passed over: {reason}", logger="current", level=logging.WARNING)
    if file not in named:
        print_log(
            f"{pointer} is missing or names no checkpoint that can be read: resuming from {file}, "
            "the newest that can be.",
            logger="current",
            level=logging.WARNING,
        )
    return str(file)


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except OSError:  # what a damaged pointer holds can be too long for a name
        return False


@contextlib.contextmanager
def whole_file(file: Path) -> Iterator[Path]:
    """Write ``file`` completely or, if anything happens meanwhile, leave what was there before.

    Yields:
        The path to write to. Once all of it is on the disk, it gets the name of ``file``.
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
    """Take the folder for this process, until it ends or closes what is returned.

    The kernel releases the lock when the process dies, however it dies. A process that already has
    the lock gets it again.

    Returns:
        A file descriptor; None on Windows and on file systems without locks.

    Raises:
        BlockingIOError: Another process has the lock; the message says which.
        OSError: The lock cannot be made; a link in its place is not followed.
    """
    if fcntl is None:
        return None
    file = Path(folder) / "train.lock"
    # The file is emptied below; through a link that would be a file outside of the folder.
    descriptor = os.open(file, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK, 0o644)
    try:
        # Not flock: the workers of a data loader would inherit that, and outlive a killed process.
        fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        holder = os.read(descriptor, 4096).decode(errors="replace").strip() or "another process"
        os.close(descriptor)
        if error.errno not in (errno.EACCES, errno.EAGAIN):
            print_log(f"{folder} cannot be locked: {error}", "current", logging.WARNING)
            return None
        raise BlockingIOError(
            f"{folder} is in use by a training: {holder}. Wait until it ends, stop it, or choose "
            "another folder with --work-dir."
        ) from None
    os.truncate(descriptor, 0)
    command = shlex.join(sys.argv)
    os.write(descriptor, f"process {os.getpid()} on {socket.gethostname()} ({command})".encode())
    return descriptor
