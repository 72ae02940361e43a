"""How the tools report errors.

An error that the user can fix is printed as one paragraph:

- :class:`CommandError` and ``mmseg_otseg.errors.UserError``, which explain what was wrong;
- an ``OSError``: a file, the disk or the network;
- a package that cannot be imported, or a lack of memory;
- an error raised by mmengine's registry: the config names a component that does not exist, or
  gives one an argument that it does not take.

Any other error is a fault of the program and keeps its traceback. ``MMSEG_OTSEG_TRACEBACK=1`` shows
the traceback of every error, and the log file of a run holds that of the error it ended with.

An error that all processes of a run meet is reported by the first one: the others wait a little,
and torchrun ends them. An error that only another process meets is reported by that one.
"""

from __future__ import annotations

import logging
import os
import sys
import time
import traceback
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

TRACEBACK = "MMSEG_OTSEG_TRACEBACK"
SECONDS_FOR_THE_FIRST = 5.0
REGISTRY = str(Path("mmengine", "registry"))
#: The extras of this project that bring the packages which some tools need.
EXTRAS = {
    **dict.fromkeys(("mmengine", "mmcv", "mmseg", "torch"), "onedl"),
    **{"gradio": "demo", "pycocotools": "coco"},
}


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
        sys.exit(130)
    except Exception as error:
        if isinstance(error.__context__, KeyboardInterrupt):
            sys.exit(130)  # mmengine makes a SyntaxError of Ctrl-C while it formats a config
        if os.environ.get("RANK", "0") != "0":  # torchrun ends it if the first process fails too
            time.sleep(SECONDS_FOR_THE_FIRST)
        log_to_file(error)
        text = message_for_user(error)
        if text is None or os.environ.get(TRACEBACK, "0") != "0":
            raise
        sys.exit(f"{Path(sys.argv[0]).name}: error: {text}")


def log_to_file(error: Exception) -> None:
    """Write an error with its traceback to the log file of the run that it ended, if there is one.

    The terminal gets it from :func:`run` or from Python. mmengine opens the file in the first
    process only; another one appends to it.
    """
    if "mmengine.logging" not in sys.modules:
        return
    from mmengine.logging import MMLogger

    logger = MMLogger.get_current_instance()
    trace = (type(error), error, error.__traceback__)
    text = f"process {os.environ.get('RANK', '0')} of the run ended with an error"
    record = logger.makeRecord(logger.name, logging.ERROR, __file__, 0, text, (), trace, "run")
    files = [handler for handler in logger.handlers if isinstance(handler, logging.FileHandler)]
    with suppress(OSError):  # such as a folder that only the first machine has
        if not files and logger.log_file:
            files = [logging.FileHandler(logger.log_file)]
        for file in files:
            file.handle(record)


def message_for_user(error: Exception) -> str | None:
    """The message of an error that the user can fix; None for a fault of the program."""
    text = str(error.args[0] if isinstance(error, KeyError) and error.args else error)
    if "Original Traceback" in text:  # from a worker of a data loader, whose traceback is in it
        text = text.rsplit(f"{type(error).__name__}: ", 1)[-1]
    text = text.strip() or type(error).__name__
    if isinstance(error, ModuleNotFoundError) and error.name in EXTRAS:
        return f'{text}, which this needs: pip install "mmseg_otseg[{EXTRAS[error.name]}]"'
    user_error = getattr(sys.modules.get("mmseg_otseg.errors"), "UserError", CommandError)
    if isinstance(error, (CommandError, user_error, OSError, ImportError, MemoryError)):
        return text
    if type(error).__name__ == "OutOfMemoryError":  # torch's
        return text
    files = [frame.filename for frame in traceback.extract_tb(error.__traceback__)]
    if not any(REGISTRY in file for file in files):
        return None
    if "__init__() got an unexpected" in text or "__init__() missing" in text:
        return (
            f"{text}: an option in the config, perhaps in one it inherits from. A new `type` keeps "
            "the options of the old one, unless its dict has _delete_=True."
        )
    return text if REGISTRY in files[-1] else None
