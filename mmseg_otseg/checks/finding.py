"""A finding of the data check."""

from __future__ import annotations

from typing import NamedTuple


class Finding(NamedTuple):
    """What was found and what to do about it.

    Attributes:
        level: ``"error"`` (training is pointless), ``"warning"`` (the result may suffer) or
            ``"note"`` (worth knowing).
        text: One or two sentences.
    """

    level: str
    text: str


def error(text: str) -> Finding:
    """A finding that makes training pointless."""
    return Finding("error", text)


def warning(text: str) -> Finding:
    """A finding that may harm the result."""
    return Finding("warning", text)


def note(text: str) -> Finding:
    """Something worth knowing."""
    return Finding("note", text)
