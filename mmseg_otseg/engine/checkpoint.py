"""The one door through which checkpoints come in.

Importing :mod:`mmseg_otseg.engine` makes mmengine read every checkpoint through it: resuming,
``load_from``, ``init_cfg`` and the inference of mmengine and mmseg alike. Nothing that a file
brings is executed (:func:`read_checkpoint`), and what mmengine itself would execute, build from or
delete on a file's word is taken out first (:func:`~mmseg_otseg.engine.harmless.make_harmless`).
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file

from mmseg_otseg.files import ForeignObjectError, MapLocation, PlainValues, TorchFile


def check_target(path: str | os.PathLike) -> None:
    """Refuse a name under which a checkpoint that is written could not be read again.

    Raises:
        ValueError: If it ends in ``.safetensors``, as files of ``torch.save`` are none.
    """
    if Path(path).suffix == ".safetensors":
        raise ValueError(
            f"a checkpoint cannot be written to {path}, as it holds more than a .safetensors file "
            f"can: call it {Path(path).stem}.pth"
        )


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
            executed), or it is truncated or damaged, or no checkpoint at all.
    """
    file = Path(path).expanduser()
    if not file.is_file():
        raise FileNotFoundError(f"The checkpoint {file} does not exist.")
    try:
        if file.suffix == ".safetensors":
            device = map_location if isinstance(map_location, str | torch.device) else "cpu"
            return load_file(file, device=str(device))
        with file.open("rb") as stream:
            opened = TorchFile(stream, map_location)
            if opened.is_program:
                raise ValueError("it is a TorchScript program")
            return PlainValues(opened.storage, opened.size).make(opened.tree)
    except ForeignObjectError as error:
        raise ValueError(
            f"The checkpoint {file} was refused, and nothing of it executed: it brings "
            f"'{error.name.removeprefix('builtins.')}', where only tensors and plain values "
            "(numbers, strings, lists, dicts) may be. Save it anew with nothing else in it, if you "
            "trust its source."
        ) from error
    except Exception as error:  # a broken file can make a reader raise anything
        reason = (str(error) or type(error).__name__).splitlines()[0][:300]
        if "deserialize object on" in reason:
            raise ValueError(
                f"{file} was saved on a device that this machine lacks: read it with "
                "map_location='cpu'."
            ) from error
        raise ValueError(
            f"{file} cannot be read as a checkpoint of tensors and plain values: {reason}. Take an "
            "intact copy, or another file."
        ) from error
