"""Checkpoints are read without ever executing what they bring.

mmengine 0.10.7 cannot resume its own checkpoints under torch >= 2.6, and the maintained fork
falls back to executing whatever the file names. Importing this module puts :func:`load_from_local`
and :func:`load_from_http` in the place of mmengine's loaders, so that resuming, ``load_from``,
``init_cfg`` and mmseg's inference all read through :func:`read_checkpoint`.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlparse

import torch
from mmengine.dist import barrier, is_main_process
from mmengine.runner import CheckpointLoader
from mmengine.runner import checkpoint as mmengine_checkpoint
from safetensors.torch import load_file
from torch import serialization

from mmseg_otseg.engine.plain_objects import PLAIN_GLOBALS, restore

MapLocation = str | torch.device | Callable | dict[str, str] | None


def read_checkpoint(path: str | os.PathLike, map_location: MapLocation = None) -> Any:
    """Read a checkpoint of tensors and plain values; anything else is refused.

    Args:
        path: A file of ``torch.save``, or a ``.safetensors`` file.
        map_location: As for :func:`torch.load`; a device for ``.safetensors``.

    Returns:
        What was saved: usually a dict with ``state_dict`` and ``meta``; the tensors by name for a
        ``.safetensors`` file.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: The file brings something else than tensors and plain values (which was not
            executed), or it is truncated, or no checkpoint at all.
    """
    file = Path(path).expanduser()
    if not file.is_file():
        raise FileNotFoundError(f"The checkpoint {file} does not exist.")
    try:
        if file.suffix == ".safetensors":
            device = map_location if isinstance(map_location, str | torch.device) else "cpu"
            return load_file(file, device=str(device))
        with _plain_globals_only():
            return restore(torch.load(file, map_location=map_location, weights_only=True))
    except Exception as error:  # a broken file can make the unpickler raise anything
        reason = str(error) or type(error).__name__
        if "deserialize object on" in reason:  # saved on a device that this machine lacks
            raise
        brought = re.search(r"GLOBAL (\S+) ", reason)
        if brought:
            raise ValueError(
                f"The checkpoint {file} was refused, and nothing of it executed: it brings "
                f"'{brought[1]}', where only tensors and plain values (numbers, strings, lists, "
                "dicts) may be. Save it anew with nothing else in it, if you trust its source."
            ) from error
        unpickler = re.search(r"WeightsUnpickler error: (.+)", reason)
        what = unpickler[1] if unpickler else reason.splitlines()[0]
        raise ValueError(
            f"{file} cannot be read as a checkpoint of tensors and plain values ({what}): it is "
            "truncated, or a file of another kind. Take an intact copy."
        ) from error


@contextmanager
def _plain_globals_only() -> Iterator[None]:
    """Let torch know the stand-ins, and no other object under one of their names."""
    before = serialization.get_safe_globals()
    names = {name for _, name in PLAIN_GLOBALS}
    others = [item for item in before if _name_in_file(item) not in names]
    serialization.clear_safe_globals()
    serialization.add_safe_globals([*others, *PLAIN_GLOBALS])
    try:
        yield
    finally:
        serialization.clear_safe_globals()
        serialization.add_safe_globals(before)


def _name_in_file(item: Any) -> str:
    return item[1] if isinstance(item, tuple) else f"{item.__module__}.{item.__qualname__}"


def load_from_local(filename: str, map_location: MapLocation = None) -> Any:
    """mmengine's loader of files on this machine, see :func:`read_checkpoint`."""
    return read_checkpoint(filename, map_location)


def load_from_http(
    filename: str,
    map_location: MapLocation = None,
    model_dir: str | None = None,
    progress: bool = True,
) -> Any:
    """mmengine's loader of URLs: download to torch's hub folder once, then read the file.

    Args:
        filename: The URL.
        map_location: As for :func:`torch.load`.
        model_dir: Where to keep the file. Default: ``checkpoints`` in torch's hub folder.
        progress: Whether to show how far the download is.
    """
    folder = Path(model_dir or Path(torch.hub.get_dir()) / "checkpoints")
    file = folder / Path(urlparse(filename).path).name
    if is_main_process():
        _download(filename, file, progress)
    barrier()
    _download(filename, file, progress)  # another machine has a folder of its own
    return read_checkpoint(file, map_location)


def _download(url: str, file: Path, progress: bool) -> None:
    if not file.is_file():
        file.parent.mkdir(parents=True, exist_ok=True)
        torch.hub.download_url_to_file(url, str(file), progress=progress)


def _safe_torch_load(file: Any, map_location: MapLocation = None, weights_only: Any = None) -> Any:
    with _plain_globals_only():
        return restore(torch.load(file, map_location=map_location, weights_only=True))


CheckpointLoader.register_scheme("", load_from_local, force=True)
CheckpointLoader.register_scheme(["http://", "https://"], load_from_http, force=True)
# Names such as torchvision:// and open-mmlab:// are turned into a URL and handed to this function.
mmengine_checkpoint.load_from_http = load_from_http
# The fork reads what comes from object stores with this one, which falls back to executing.
if hasattr(mmengine_checkpoint, "_safe_torch_load"):
    mmengine_checkpoint._safe_torch_load = _safe_torch_load
