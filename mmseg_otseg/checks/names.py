"""Checks class names without a model."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Sequence

from mmseg_otseg.checks.finding import Finding, note, warning

NO_THINGS = frozenset(
    (
        *("background", "bg", "void", "unlabeled", "unlabelled", "ignore", "ignored", "other"),
        *("others", "none", "unknown", "misc", "null", "undefined"),
    )
)


def name_findings(names: Sequence[str]) -> list[Finding]:
    """Names that CLIP cannot understand or that are hard to distinguish or to type.

    Args:
        names: The class names.
    """
    findings = []
    for group in _near_duplicates(names):
        findings.append(
            warning(
                f"the names {', '.join(group)} are nearly the same, so the model cannot tell them "
                "apart. Merge them into one class, or name the difference."
            )
        )
    for test, level, text in _TESTS:
        found = [name for name in names if test(name)]
        if found:
            findings.append(level(f"{', '.join(map(repr, found))}: {text}"))
    return findings


def _plain(name: str) -> str:
    """A name in lower-case words without separators and plural endings."""
    words = re.findall(r"[^\W_]+", _split_case(name).casefold())
    return " ".join(_singular(word) for word in words)


def _split_case(name: str) -> str:
    return re.sub(r"(?<=[a-z])(?=[A-Z])", " ", name)


def _singular(word: str) -> str:
    if word.endswith("ies") and len(word) > 4:
        return word[:-3] + "y"
    if re.search(r"(s|x|ch|sh)es$", word):
        return word[:-2]
    return word[:-1] if _is_plural(word) else word


def _is_plural(word: str) -> bool:
    return len(word) > 3 and word.endswith("s") and not word.endswith(("ss", "us", "is", "as"))


def _near_duplicates(names: Sequence[str]) -> list[list[str]]:
    groups: dict[str, list[str]] = defaultdict(list)
    for name in names:
        groups[_plain(name)].append(name)
    return [group for group in groups.values() if len(group) > 1]


def _is_no_thing(name: str) -> bool:
    return name.casefold().strip(" _") in NO_THINGS


_TESTS = (
    (
        _is_no_thing,
        warning,
        "not a thing that text can describe. Remove it from `classes` and set `background` to its "
        "label value; pixels of no class are then ignored, and at test time the "
        'option --none-below of tools/segment.py gives "none of these".',
    ),
    (
        lambda name: (
            not re.search(r"[^\W\d_]{2}", name)
            or re.fullmatch(r"(?i)(class|label|c|id)[ _-]*\d+", name)
        ),
        warning,
        "means nothing to CLIP. Write an English word for what is in the image.",
    ),
    (
        lambda name: "_" in name or _split_case(name) != name,
        warning,
        "written as in a program. CLIP reads text: separate the words with spaces.",
    ),
    (
        lambda name: name != name.lower() and _split_case(name) == name,
        warning,
        "has capital letters. CLIP reads lower case, and a name typed later counts as the same "
        "class (seen, and with its bias) only if it is spelled the same: use lower case.",
    ),
    (
        lambda name: name != name.strip() or "  " in name,
        warning,
        "has extra spaces. Remove them.",
    ),
    (
        lambda name: not name.isascii(),
        warning,
        "not in English letters. CLIP was trained on English text: use English names.",
    ),
    (
        lambda name: _is_plural(name.split(" ")[-1].casefold()) and not _is_no_thing(name),
        note,
        'looks like a plural. The prompts say "a photo of a ...": use the singular if '
        "there is one.",
    ),
    (
        lambda name: "," in name,
        note,
        "has a comma, which separates names in tools/segment.py --classes.",
    ),
)
