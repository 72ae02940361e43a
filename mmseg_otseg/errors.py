"""The error that users can fix."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any


class UserError(ValueError):
    """Something in the input is wrong: a setting, a class name, a file, a mix of versions.

    The message says what is wrong and what to do. The command-line tools print it as one paragraph;
    any other error is a fault of the program and keeps its traceback.
    """


def listed(names: Sequence[Any], most: int = 5) -> str:
    """The first few of some names, and how many more there are, for a message."""
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(map(str, names[:most])) + more


def check_option(name: str, value: Any, known: Sequence[Any]) -> None:
    """Raise a UserError unless the value of an option is a known one."""
    if value not in known:
        raise UserError(f"{name} must be one of {', '.join(map(str, known))}, got {value!r}")
