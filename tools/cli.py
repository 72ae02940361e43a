"""Shared code of the command-line tools: options, reading the config, and reporting errors.

This module imports nothing slow. A tool imports slow packages only after its arguments and the
paths in its config have been checked, so ``--help``, a mistyped option and a missing data folder
get an answer at once.

Errors the user can fix
-----------------------
Such an error is printed as one paragraph at the end of the output, without a traceback. It is

- an ``OSError``: a file, the disk or the network;
- a package that is not installed, or a lack of memory;
- a ``ValueError``, ``TypeError`` or ``ImportError`` raised by a ``raise`` statement of this
  project, because its message explains what was wrong with the input;
- any error raised by mmengine's registry: the config names a component that does not exist, or
  gives it an argument that it does not accept, or that a class it derives from does not accept;
- a module of ``custom_imports`` that cannot be imported.

Any other error is a bug and keeps its traceback. ``MMSEG_OTSEG_TRACEBACK=1`` shows the traceback of
every error; the log file of a run always has it. If ``dist_train.sh`` or ``dist_test.sh`` started
several processes, only one of them reports the error; see ``launch.py``.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import re
import sys
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mmengine.config import Config

TRACEBACK = "MMSEG_OTSEG_TRACEBACK"
TOOLS = Path(__file__).resolve().parent
HIDDEN_BLANK = "\x1f"
REGISTRY = f"{os.sep}mmengine{os.sep}registry{os.sep}"


class Settings(argparse.Action):
    """mmengine's ``DictAction``, imported only when used; blanks in names and paths are kept."""

    def __call__(self, parser: Any, namespace: Any, values: Any, option: str | None = None) -> None:
        for value in values:
            if "=" not in value:
                parser.error(f"{option} takes KEY=VALUE, not '{value}'")
        from mmengine.config import DictAction

        # It drops all blanks. Those that do not stand beside a bracket, comma or = are hidden.
        blanks = re.compile(r"(?<=[^\s,=(\[]) +(?=[^\s,)\]])")
        hidden = [blanks.sub(lambda found: len(found[0]) * HIDDEN_BLANK, value) for value in values]
        DictAction(self.option_strings, self.dest)(parser, namespace, hidden, option)
        setattr(namespace, self.dest, _with_blanks(getattr(namespace, self.dest)))


def _with_blanks(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _with_blanks(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return type(value)(_with_blanks(item) for item in value)
    return value.replace(HIDDEN_BLANK, " ") if isinstance(value, str) else value


def new_parser(description: str | None) -> argparse.ArgumentParser:
    """A parser whose ``--help`` explains how to see tracebacks."""
    lines = (description or "").splitlines()
    return argparse.ArgumentParser(
        description=lines[0] if lines else None,
        epilog=f"Set {TRACEBACK}=1 to see the traceback of an error.",
    )


def config_parser(description: str | None) -> argparse.ArgumentParser:
    """A parser with the options that mmseg's own tools have in common."""
    parser = new_parser(description)
    parser.add_argument("config", help="config file")
    parser.add_argument("--work-dir", help="folder for logs, metrics and checkpoints")
    add_cfg_options(parser)
    parser.add_argument(
        "--launcher",
        choices=["none", "pytorch", "slurm", "mpi"],
        default="none",
        help="what started this process if it is one of several",
    )
    # Launchers older than torchrun pass this option instead of setting LOCAL_RANK.
    parser.add_argument("--local_rank", "--local-rank", type=int, default=0, help=argparse.SUPPRESS)
    return parser


def add_cfg_options(parser: argparse.ArgumentParser) -> None:
    """Add ``--cfg-options``."""
    parser.add_argument(
        "--cfg-options",
        nargs="+",
        action=Settings,
        metavar="KEY=VALUE",
        help='settings that override the config, e.g. train_cfg.max_iters=100 key="[a,b c]"',
    )


def load_config(args: argparse.Namespace, *parts: str) -> Config:
    """Read and check the config like :func:`read_config`, then import its components.

    The work folder comes from the option, the config or :func:`default_work_dir`, in this order.

    Raises:
        FileNotFoundError: As in :func:`read_config`, and if a data folder or list is missing or
            empty.
    """
    cfg = read_config(args, *parts)
    from mmengine.utils import import_modules_from_strings

    import mmseg_otseg  # noqa: F401  registers the components
    from mmseg_otseg.datasets.data_folders import check_config
    from mmseg_otseg.engine import resolve
    from mmseg_otseg.engine.run_folder import default_work_dir

    if cfg.get("work_dir") is None:
        cfg.work_dir = default_work_dir(args.config)
    if cfg.get("custom_imports"):
        import_modules_from_strings(**cfg.custom_imports)
    for config in _datasets(resolve(cfg), parts):
        check_config(config)
    return cfg


def read_config(args: argparse.Namespace, *parts: str) -> Config:
    """Read the config file, apply the options, and check whatever takes less than a second.

    Args:
        args: Parsed arguments with ``config`` and, optionally, ``cfg_options``, ``work_dir``,
            ``launcher``, ``local_rank``, ``checkpoint`` and ``resume``.
        parts: Subsets of the data that the tool reads: "train", "val" or "test".

    Raises:
        ValueError: If the config file cannot be read.
        FileNotFoundError: If it, a data folder, a checkpoint or CLIP's weights do not exist.
    """
    try:
        from mmengine.config import Config
    except ModuleNotFoundError:
        import mmseg_otseg  # noqa: F401  its error says what to install

        raise

    os.environ.setdefault("LOCAL_RANK", str(getattr(args, "local_rank", 0)))
    if not Path(args.config).is_file():
        raise FileNotFoundError(f"the config file {args.config} does not exist")
    try:
        cfg = Config.fromfile(args.config, import_custom_modules=False)
        cfg.merge_from_dict(getattr(args, "cfg_options", None) or {})
    except Exception as error:  # a config is a program and can raise any error
        raise ValueError(f"cannot read the config {args.config}: {_told(error)}") from error
    cfg.launcher = getattr(args, "launcher", "none")
    if getattr(args, "work_dir", None) is not None:
        cfg.work_dir = args.work_dir
    for config in _datasets(cfg, parts):
        for data in _with_data_root(config, cfg.get("data_root")):
            _check_data_root(data)
    for name in ("checkpoint", "resume"):
        _check_checkpoint(getattr(args, name, None))
    _check_checkpoint(cfg.get("load_from"))
    clip = (cfg.get("model") or {}).get("clip")
    _check_clip(clip.get("pretrained") if isinstance(clip, dict) else None)
    return cfg


def _datasets(cfg: Config, parts: Sequence[str]) -> list[dict]:
    loaders = [cfg.get(f"{part}_dataloader") or {} for part in parts]
    return [loader["dataset"] for loader in loaders if isinstance(loader.get("dataset"), dict)]


def _with_data_root(config: dict, of_folders: str | None) -> Iterator[dict]:
    if config.get("type") == "FolderDataset":  # takes it from the top level of the config
        config = {"data_root": of_folders, **config}
    if config.get("data_root"):
        yield config
    for inner in [config.get("dataset"), *(config.get("datasets") or ())]:
        if isinstance(inner, dict):
            yield from _with_data_root(inner, of_folders)


def _check_data_root(config: dict) -> None:
    root = str(config["data_root"])
    if config.get("backend_args") or ":" in root or Path(root).is_dir():  # s3:// and the like
        return
    full = Path(root).absolute()
    where = root if root == str(full) else f"{root} ({full})"
    raise FileNotFoundError(
        f"the data folder {where} of {config.get('type')} does not exist. Put the data there, or "
        "set `data_root` of that dataset in the config to where it is."
    )


def _check_checkpoint(path: str | None) -> None:
    if path and path != "auto" and "://" not in path and not Path(path).expanduser().is_file():
        raise FileNotFoundError(f"the checkpoint {path} does not exist")


def _check_clip(weights: str | None) -> None:
    path = Path(weights or "").expanduser()
    if (path.suffix or len(path.parts) > 1) and not path.is_file():
        raise FileNotFoundError(f"the CLIP weights {weights} do not exist")


def run(main: Callable[[], None]) -> None:
    """Run a tool and report its errors; see the top of this file.

    Args:
        main: The tool, which reads its arguments from the command line.
    """
    try:
        main()
    except KeyboardInterrupt:
        sys.exit("interrupted")
    except Exception as error:
        message = None if os.environ.get(TRACEBACK, "0") != "0" else what_to_fix(error)
        _log(error)
        _tell(message or "".join(traceback.format_exception(error)), fixable=message is not None)
        sys.exit(1)


def what_to_fix(error: Exception) -> str | None:
    """The message of an error that the user can fix; None for a bug."""
    steps, message = _raised_by(error)
    file, line = steps[-1] if steps else ("", "")
    if isinstance(error, (OSError, ModuleNotFoundError, MemoryError)):
        return message
    if type(error).__name__ == "OutOfMemoryError":  # torch's
        return message
    if isinstance(error, ImportError) and message.startswith("Failed to import"):  # mmengine's
        inner = error.__cause__ if isinstance(error.__cause__, ImportError) else error
        return (
            f"{_told(inner)}, which the config names in custom_imports "
            f"({_told(inner.__context__ or inner)}). If it is a file of yours, put its folder on "
            "PYTHONPATH."
        )
    built = isinstance(error, TypeError) and any(REGISTRY in name for name, _ in steps)
    if built and re.search(r"__init__\(\) (got an unexpected|missing)", message):
        return (
            f"{message}: an option in the config, perhaps in one it inherits from. A new `type` "
            "keeps the options of the old one, unless its dict has _delete_=True."
        )
    if isinstance(error, (ValueError, TypeError, ImportError)):
        on_purpose = line.startswith("raise ") and file.startswith(_own_folders())
        return message if on_purpose or REGISTRY in file else None
    return message if REGISTRY in file else None


def _log(error: Exception) -> None:
    """Write the traceback to the log file of the run, if it has one."""
    if "mmengine.logging" not in sys.modules:
        return
    from mmengine.logging import MMLogger

    logging.raiseExceptions = False  # a full disk must not add tracebacks to its one paragraph
    fields = {"levelno": logging.ERROR, "levelname": "ERROR", "msg": "The run ended with an error."}
    fields |= {"name": "mmengine", "exc_info": (type(error), error, error.__traceback__)}
    for handler in MMLogger.get_current_instance().handlers:
        if isinstance(handler, logging.FileHandler):
            handler.emit(logging.makeLogRecord(fields))


def _own_folders() -> tuple[str, ...]:
    """The folders with this project's code, wherever it is installed."""
    spec = find_spec("mmseg_otseg")
    folders = [TOOLS, *((Path(spec.origin).parent,) if spec and spec.origin else ())]
    return tuple(f"{folder}{os.sep}" for folder in folders)


def _raised_by(error: Exception) -> tuple[list[tuple[str, str]], str]:
    """Files and lines of an error's traceback, with the line that raised it last; and its message.

    An error from another process (of a DataLoader or a pool) has its traceback as text.
    """
    message = _told(error)
    text = str(error.__cause__) if type(error.__cause__).__name__ == "_RemoteTraceback" else ""
    if re.match(r"Caught \w+ in DataLoader worker process \d+", message):
        text, message = message, message.split(f"\n{type(error).__name__}: ")[-1]
    if text:
        return re.findall(r'^ *File "(.+?)", line \d+.*\n *(.*)$', text, re.MULTILINE), message
    return [(s.filename, s.line or "") for s in traceback.extract_tb(error.__traceback__)], message


def _told(error: BaseException) -> str:
    """The message of an error; for a ``KeyError``, without the quotes that ``str`` adds."""
    plain = isinstance(error, KeyError) and len(error.args) == 1
    return (str(error.args[0]) if plain else str(error)).strip() or type(error).__name__


def _tell(message: str, fixable: bool) -> None:
    """Print the message; one of several processes passes it to ``launch.py`` instead."""
    text = f"{Path(sys.argv[0]).name}: error: {message}" if fixable else message
    sys.stdout.flush()
    file = os.environ.get("TORCHELASTIC_ERROR_FILE")
    if file:
        told = {"message": text, "timestamp": int(time.time()), "fixable": fixable}
        Path(file).write_text(json.dumps({**told, "time": time.time()}), encoding="utf-8")
    else:
        print(text, file=sys.stderr)
