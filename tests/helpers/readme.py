"""The README, taken apart: its code blocks, tables and code spans by section."""

from __future__ import annotations

import re
from typing import NamedTuple

from tests.helpers.paths import ROOT

README = (ROOT / "README.md").read_text(encoding="utf-8")


class Block(NamedTuple):
    """A fenced block: the heading above it, its language and its text."""

    section: str
    language: str
    text: str

    @property
    def commands(self) -> list[str]:
        """The lines of a bash block without their comments."""
        lines = (re.sub(r"(^|\s+)#.*", "", line).strip() for line in self.text.splitlines())
        return [line for line in lines if line]


def blocks(language: str | None = None, section: str | None = None) -> list[Block]:
    """The fenced blocks, of one language or under one heading if asked for."""
    found, heading = [], ""
    for match in re.finditer(
        r"^#+ ([^\n]+)$|^```(\w+)\n(.*?)^```$", README, re.MULTILINE | re.DOTALL
    ):
        heading = match[1] or heading
        if match[2] and language in (None, match[2]) and section in (None, heading):
            found.append(Block(heading, match[2], match[3]))
    return found


def rows(head: str) -> list[list[str]]:
    """The cells of each row of the table with this header line."""
    lines = README.splitlines()
    start = lines.index(head) + 2
    found = []
    for line in lines[start:]:
        if not line.startswith("|"):
            break
        found.append([cell.strip() for cell in line.strip("|").split("|")])
    return found


def spans(text: str) -> list[str]:
    """What stands between backticks."""
    return re.findall(r"`([^`]+)`", text)


def prose() -> str:
    """The README without its fenced blocks."""
    return re.sub(r"^```.*?^```$", "", README, flags=re.MULTILINE | re.DOTALL)
