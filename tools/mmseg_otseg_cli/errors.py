"""How the tools report errors.

An error that the user can fix is printed as one paragraph:

- :class:`CommandError` and ``mmseg_otseg.errors.UserError``, which explain what was wrong;
- an ``OSError``: a file, the disk or the network;
- a package that cannot be imported, or a lack of memory;
- an error raised by mmengine's registry: the config names a component that does not exist, or
  gives one an argument that it does not take.

Any other error is a fault of the program and keeps its traceback. ``MMSEG_OTSEG_TRACEBACK=1`` shows
the traceback of every error; the log file of a run always has it.
"""

from __future__ import annotations

import errno
import logging
import os
import re
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path

TRACEBACK = "MMSEG_OTSEG_TRACEBACK"
REGISTRY = str(Path("mmengine", "registry"))
HEAD_START = 5  # seconds; torchrun ends the other processes well within them


class CommandError(ValueError):
    """The command line or a config file is wrong; like ``UserError``, which is slow to import."""


def run(main: Callable[[], None]) -> None:
    """Run a tool and report its errors; see the top of this file.

    Args:
        main: The tool, which reads its arguments from the command line.
    """
    logging.raiseExceptions = False  # a full disk must not add tracebacks to its one paragraph
    try:
        main()
    except BrokenPipeError:  # the reader of a pipe, such as `head`, has seen enough
        os._exit(1)
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        sys.exit(130)
    except Exception as error:
        text = message_for_user(error)
        if text is None or os.environ.get(TRACEBACK, "0") != "0":
            report = "".join(traceback.format_exception(error))
        else:
            report = f"{Path(sys.argv[0]).name}: error: {text}"
        _write_to_log(error)
        if int(os.environ.get("RANK", "0")) > 0:
            # What all processes stumble over is reported by the first, and torchrun then ends the
            # others. Only a process that fails alone is still here afterwards.
            time.sleep(HEAD_START)
        sys.stdout.flush()
        print(report, file=sys.stderr)
        sys.exit(1)


def message_for_user(error: Exception) -> str | None:
    """The message of an error that the user can fix; None for a fault of the program."""
    text = str(error.args[0] if isinstance(error, KeyError) and error.args else error)
    if "Original Traceback" in text:  # from a worker of a data loader, whose traceback is in it
        text = text.rsplit(f"{type(error).__name__}: ", 1)[-1]
    text = text.strip() or type(error).__name__
    if isinstance(error, OSError) and error.errno == errno.ENOSPC and error.filename is None:
        folders = [str(Path(handler.baseFilename).parent) for handler in _log_files()]
        text += "".join(f". The run writes to {folder}" for folder in folders)
    user_error = getattr(sys.modules.get("mmseg_otseg.errors"), "UserError", CommandError)
    if isinstance(error, ModuleNotFoundError) and error.name == "mmseg_otseg":
        return (
            f"{text} for {sys.executable}. Activate the environment that has the project, or "
            "install it as README.md says."
        )
    if isinstance(error, (CommandError, user_error, OSError, ImportError, MemoryError)):
        return text
    if type(error).__name__ == "OutOfMemoryError":  # torch's
        return text
    files = [frame.filename for frame in traceback.extract_tb(error.__traceback__)]
    if not any(REGISTRY in file for file in files):
        return None
    if re.search(r"__init__\(\) (got an unexpected|missing)", text):
        return (
            f"{text}: an option in the config, perhaps in one it inherits from. A new `type` keeps "
            "the options of the old one, unless its dict has _delete_=True."
        )
    return text if REGISTRY in files[-1] else None


def _write_to_log(error: Exception) -> None:
    """Write the traceback to the log file of the run, if it has one."""
    fields = {"levelno": logging.ERROR, "levelname": "ERROR", "msg": "The run ended with an error."}
    fields |= {"name": "mmengine", "exc_info": (type(error), error, error.__traceback__)}
    for handler in _log_files():
        handler.emit(logging.makeLogRecord(fields))


def _log_files() -> list[logging.FileHandler]:
    """What writes the log file of the run; empty before a run has begun."""
    if "torch" not in sys.modules:  # a logger would import it
        return []
    from mmengine.logging import MMLogger

    handlers = MMLogger.get_current_instance().handlers
    return [handler for handler in handlers if isinstance(handler, logging.FileHandler)]
