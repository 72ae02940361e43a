"""Class names from a text file."""

from __future__ import annotations

import os

from mmseg_otseg.errors import UserError


def read_class_names(path: str | os.PathLike) -> list[str]:
    """The class names in a text file, one per line, in the order of their label values.

    Raises:
        FileNotFoundError: If the file does not exist.
        UserError: If it holds no name, has an empty line before a name, or is not UTF-8 text.
    """
    if not os.path.isfile(path):
        raise FileNotFoundError(
            f"the list of class names {os.fspath(path)} ({os.path.abspath(path)}) does not exist. "
            "Write it, one name per line in the order of the label values, or give the names in "
            "`classes`."
        )
    try:
        with open(path, encoding="utf-8-sig") as file:
            names = [line.strip() for line in file.read().rstrip().splitlines()]
    except UnicodeDecodeError as error:
        raise UserError(f"{os.fspath(path)} is not UTF-8 text; save it as UTF-8") from error
    if not all(names) or not names:
        raise UserError(
            f"{os.fspath(path)} has an empty line where a class name should be: the line number "
            "of a name determines its label value, so every line needs a name."
        )
    return names
