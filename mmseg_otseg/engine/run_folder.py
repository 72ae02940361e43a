"""The work folder of a run: its default name, its latest checkpoint, its lock."""

from __future__ import annotations

import errno
import logging
import os
import shlex
import socket
import sys
from pathlib import Path

from mmengine.logging import print_log

from mmseg_otseg.engine.checkpoint import read_checkpoint
from mmseg_otseg.errors import UserError

try:
    import fcntl
except ImportError:  # Windows has no such locks
    fcntl = None  # type: ignore[assignment]

POINTER = "last_checkpoint"  # the file in which mmengine names the latest checkpoint


def default_work_dir(config: str | os.PathLike) -> str:
    """The default work folder of a config: ``work_dirs/<folder of the file>/<file>``.

    If only the file name were used, ``otseg/voc_512.py`` and ``zegot/voc_512.py`` would share a
    folder.
    """
    file = Path(config).resolve()
    return str(Path("work_dirs", file.parent.name, file.stem))


def latest_checkpoint(work_dir: str | os.PathLike) -> str | None:
    """Find the newest checkpoint in a folder that a run can be resumed from.

    The one named in ``last_checkpoint`` comes first, by its name in this folder, so that a copied
    or moved folder works too; then the others, the highest number first.

    Returns:
        The path; None if the folder holds no checkpoint yet.

    Raises:
        UserError: If the folder holds checkpoints, but none can be resumed from.
    """
    folder = Path(work_dir)
    pointer = folder / POINTER
    named = Path(pointer.read_text(errors="replace").strip()).name if pointer.is_file() else ""
    files = [*folder.glob("iter_*.pth"), *folder.glob("epoch_*.pth")]
    files.sort(key=lambda file: (file.name == named, len(file.name), file.name), reverse=True)
    problem = ""
    for file in files:
        try:
            if "optimizer" in read_checkpoint(file):
                return str(file)
            problem = f"{file} holds no optimizer."
        except (UserError, OSError) as error:
            problem = str(error)
        print_log(f"Skipped a checkpoint. {problem}", logger="current", level=logging.WARNING)
    if not files:
        return None
    raise UserError(
        f"{folder} holds no checkpoint to resume from. {problem} Name one with --resume PATH, or "
        "remove these files to start from the beginning."
    )


def lock_folder(folder: str | os.PathLike) -> int | None:
    """Lock the folder for this process until it ends or closes the returned descriptor.

    The kernel releases the lock however the process ends. A process that already holds the lock can
    take it again.

    Returns:
        A file descriptor; None on Windows and on file systems without locks.

    Raises:
        BlockingIOError: If another process holds the lock; the message names it.
        OSError: If the lock file cannot be opened.
    """
    if fcntl is None:
        return None
    descriptor = os.open(Path(folder) / "train.lock", os.O_RDWR | os.O_CREAT, 0o644)
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
