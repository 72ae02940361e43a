"""Safe reading of checkpoints.

Importing :mod:`mmseg_otseg.engine` makes mmengine read every checkpoint through this module, when
it resumes, for ``load_from`` and ``init_cfg``, and in the inferencers of mmengine and mmseg. No
code in a file is executed (:func:`read_checkpoint`). Entries that would make mmengine itself
execute code, build a model or delete files are removed
(:func:`~mmseg_otseg.engine.harmless.make_harmless`).
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file

from mmseg_otseg.errors import UserError
from mmseg_otseg.files import ForeignObjectError, MapLocation, PlainValues, TorchFile


def check_target(path: str | os.PathLike) -> None:
    """Refuse a file name under which a written checkpoint could not be read again.

    Raises:
        UserError: If the name ends in ``.safetensors``, because ``torch.save`` writes another
            format.
    """
    if Path(path).suffix == ".safetensors":
        raise UserError(
            f"a checkpoint cannot be written to {path}, because it holds more than a .safetensors "
            f"file can: name it {Path(path).stem}.pth"
        )


def read_checkpoint(path: str | os.PathLike, map_location: MapLocation = None) -> Any:
    """Read a checkpoint of tensors and plain values; refuse anything else.

    Args:
        path: A file written by ``torch.save``, or a ``.safetensors`` file.
        map_location: As for :func:`torch.load`. A ``.safetensors`` file accepts only a device here;
            with anything else, its tensors are on the CPU.

    Returns:
        The saved object, usually a dict with ``state_dict`` and ``meta``; for a ``.safetensors``
        file, the tensors by name.

    Raises:
        FileNotFoundError: If the file does not exist.
        UserError: If the file contains anything other than tensors and plain values (nothing is
            executed), is truncated or damaged, is not a checkpoint, or was saved on a device that
            this machine does not have.
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
                raise UserError("it is a TorchScript program")
            return PlainValues(opened.storage, opened.size).make(opened.tree)
    except ForeignObjectError as error:
        raise UserError(
            f"The checkpoint {file} was refused, and nothing in it was executed: it contains "
            f"'{error.name.removeprefix('builtins.')}', but only tensors and plain values "
            "(numbers, strings, lists, dicts) are allowed. If you trust its source, save it again "
            "with nothing else in it."
        ) from error
    except Exception as error:  # a broken file can make a reader raise anything
        reason = (str(error) or type(error).__name__).splitlines()[0][:300]
        if "deserialize object on" in reason:
            raise UserError(
                f"{file} was saved on a device that this machine does not have: read it with "
                "map_location='cpu'."
            ) from error
        raise UserError(
            f"{file} cannot be read as a checkpoint of tensors and plain values: {reason}. Use an "
            "intact copy or another file."
        ) from error
