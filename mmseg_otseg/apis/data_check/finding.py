"""One thing that the check of the data has to say."""

from __future__ import annotations

from typing import NamedTuple


class Finding(NamedTuple):
    """What was found and what to do about it.

    Attributes:
        level: ``"error"`` (training makes no sense), ``"warning"`` (it may) or ``"note"``.
        text: One or two sentences.
    """

    level: str
    text: str


def error(text: str) -> Finding:
    """A finding with which training makes no sense."""
    return Finding("error", text)


def warning(text: str) -> Finding:
    """A finding that may spoil the result."""
    return Finding("warning", text)


def note(text: str) -> Finding:
    """Something worth knowing."""
    return Finding("note", text)
