"""Reads the class names that a user gives."""

from __future__ import annotations

import ast
import csv
import os
import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mmseg_otseg.errors import UserError

SPLIT_NAMES = ("voc", "context", "cocostuff", "ade20k")
"""Names of the known splits. Their classes come from mmseg, so callers pass them in."""
LISTS = Path(__file__).parent / "class_names"
"""The class lists of other projects, ``PROJECT/DATASET.txt``; each names its source."""
# A label value before or after a name in a file. A number and a space can begin a name as well
# ("18 wheeler"), so they count only if every line has them.
INDEX = re.compile(r"(?P<i>\d+)[\s:,;=.)]+(?P<name>.*\S)")
INDEX_AFTER = re.compile(r"(?P<name>.*\S)\s*[:\t,;=]\s*(?P<i>\d+)")


def class_list(
    given: str | os.PathLike | Sequence[str | Sequence[str]],
    known: Mapping[str, Sequence[str]] | None = None,
    in_config: bool = False,
) -> list[str]:
    """The class names that a user gave, in the order of their label values.

    A class may have several names, with ``|`` between them: ``"sofa | couch"``. It is called by the
    first one, and :func:`names_of` gives all of them.

    Args:
        given: A list of names, or of lists of the names of a class; or a string with commas or line
            breaks between the classes, in which a name that holds a comma is in double quotes, and
            brackets around the whole are taken off; or the path of a ``.txt`` file with one class
            per line, see :func:`read_class_file`; or the name of a known split, or of a class list
            that comes with the package, such as ``"catseg/ade20k_847"`` (see ``LISTS``).
        known: The class names of each known split; None if mmseg is not there to give them.
        in_config: Whether a single name as a string is an error, because it is a tuple without its
            comma: ``classes=("water")``.

    Returns:
        One string for each class, with ``" | "`` between its names.

    Raises:
        FileNotFoundError: If the file does not exist.
        UserError: If there is no name, or one is empty or given twice; if the string or a line of
            the file can be read in two ways.

    Examples:
        >>> class_list('cat, "chair, wooden", sofa|couch')
        ['cat', 'chair, wooden', 'sofa | couch']
    """
    if isinstance(given, os.PathLike):
        return read_class_file(given)
    if not isinstance(given, str):
        if not isinstance(given, Sequence):
            raise UserError(f"class names are a list of names, not {given!r:.80}")
        return _checked(list(given))
    text = given.strip()
    if text in (known or ()):
        return list(known[text])  # type: ignore[index]
    lists = list_names()
    if text in lists:
        return read_class_file(LISTS / f"{text}.txt")
    if "," not in text and text.startswith(tuple(f"{name.split('/')[0]}/" for name in lists)):
        raise UserError(f"there is no class list {text}. There are {', '.join(lists)}")
    if text in SPLIT_NAMES:
        raise UserError(
            f"the classes of the split {text!r} are known only where mmseg is installed: list the "
            f"names, or put {text!r} in double quotes if it is the name of a class"
        )
    suffix = Path(text).suffix.lower()
    if suffix == ".txt":
        return read_class_file(text)
    if suffix in (".csv", ".json", ".yaml", ".yml"):
        raise UserError(f"{text}: class names are read from a .txt file, one name per line")
    names = _split(text)
    if in_config and len(names) == 1 and "," not in text:
        raise UserError(
            f"the class names are the single string {given!r}: a list of one name is "
            f"[{given!r}], and a tuple needs a comma, ({given!r},). Known splits are "
            f"{', '.join(known or SPLIT_NAMES)}; a file of names ends in .txt"
        )
    if len(names) == 1 and ";" in text:
        raise UserError(f"{text!r} is a single name: write commas between the classes")
    return _checked(names)


def list_names() -> list[str]:
    """The names of the class lists that come with the package."""
    files = sorted(LISTS.glob("*/*.txt"))
    return [file.relative_to(LISTS).with_suffix("").as_posix() for file in files]


def names_of(entry: str) -> tuple[str, ...]:
    """The names of one class, written as in :func:`class_list`; the class is called by the first.

    Examples:
        >>> names_of("sofa | couch")
        ('sofa', 'couch')
    """
    return tuple(name.strip() for name in entry.split("|")) if "|" in entry else (entry.strip(),)


def quoted(name: str) -> str:
    """A name as :func:`class_list` reads it: in double quotes if it holds a comma."""
    return f'"{name}"' if "," in name else name


def read_class_file(path: str | os.PathLike) -> list[str]:
    """The class names in a text file, one class per line, in the order of their label values.

    Lines that start with ``#`` and empty lines at the end do not count. Where every line has its
    label value before or after the name (``0: sky``, ``0 sky``, ``sky<TAB>0``), these must count up
    from 0, and are taken off. Several names of a class have ``|`` or commas between them (``sofa,
    couch``); a name that holds a comma is in double quotes. A file of one line may hold all
    classes, with commas between them.

    Raises:
        FileNotFoundError: If the file does not exist.
        UserError: If it is not UTF-8 text, or holds no name; if a line is empty, holds a name
            again, or looks like something other than a name.
    """
    if not os.path.isfile(path):
        raise FileNotFoundError(
            f"the file of class names {os.fspath(path)} ({os.path.abspath(path)}) does not exist. "
            "Write it, one name per line in the order of the label values, or list the names."
        )
    try:
        lines = Path(path).read_text(encoding="utf-8-sig").rstrip().splitlines()
    except UnicodeDecodeError as error:
        raise UserError(f"{path} is not UTF-8 text; save it as UTF-8") from error
    numbered = [(i, line.strip()) for i, line in enumerate(lines, 1) if line.strip()[:1] != "#"]
    numbers, names = [i for i, _ in numbered], [line for _, line in numbered]
    if not names:
        raise UserError(f"{path} holds no class name: write one per line")
    if len(names) == 1 and "," in names[0]:
        return _checked(_split(names[0]), str(path))
    for pattern in (INDEX, INDEX_AFTER):
        found = [match for name in names if (match := pattern.fullmatch(name))]
        if len(found) < len(names):
            continue
        for label, (number, match) in enumerate(zip(numbers, found)):
            if int(match["i"]) != label:
                raise UserError(
                    f"{path}, line {number}: the label value is {match['i']}, but label values "
                    f"count up from 0, so it should be {label}. Remove the numbers, or correct "
                    "the order"
                )
        names = [match["name"] for match in found]
    for number, name in zip(numbers, names):
        if "\t" in name:
            raise UserError(f"{path}, line {number}: {name!r} holds a tab; write only the name")
    return _checked([" | ".join(_split(name) or [""]) for name in names], str(path), numbers)


def _split(text: str) -> list[str]:
    """The names in a string, with its brackets taken off."""
    if text[:1] + text[-1:] in ("[]", "()"):
        try:
            names = ast.literal_eval(text)
            if isinstance(names, (list, tuple)) and all(
                isinstance(name, (str, list, tuple)) for name in names
            ):
                return list(names)
        except (ValueError, SyntaxError, RecursionError):
            pass  # the names are not in quotes
        text = text[1:-1]
    try:
        rows = list(csv.reader(text.splitlines(), skipinitialspace=True, strict=True))
    except csv.Error as error:
        raise UserError(
            f"cannot read the class names in {text!r}: {error}. Double quotes go around all names "
            'of a class: cat, "chair, wooden | seat"'
        ) from error
    names = []
    for row in rows:
        stripped = [name.strip() for name in row]
        names += stripped[:-1] if stripped and not stripped[-1] else stripped  # "cat, sofa,"
    for name in names:
        if f'"{name}"' not in text and name.count("(") != name.count(")"):
            raise UserError(
                f"the class name {name!r} has an open parenthesis: put a name that holds a comma "
                f"in double quotes, as in '\"road (paved, gray)\", sky'"
            )
    return names


def _checked(
    given: Sequence[Any], source: str = "the class names", lines: Sequence[int] | None = None
) -> list[str]:
    """The classes as strings, if these are names, none of them empty or given twice."""
    where, places = ("line", lines) if lines else ("number", range(1, len(given) + 1))
    found: dict[str, list[int]] = defaultdict(list)
    classes = []
    for place, entry in zip(places, given):
        parts = entry if isinstance(entry, (list, tuple)) and entry else [entry]
        if not all(isinstance(part, str) for part in parts):
            raise UserError(
                f"{source}, {where} {place}: a name must be a string, not {entry!r:.80}"
            )
        names = [name for part in parts for name in names_of(part)]
        if not all(name.strip() for name in names):
            raise UserError(
                f"{source}, {where} {place}: the name is empty. The place of a name is its label "
                "value, so every class needs one"
            )
        for name in names:
            found[name].append(place)
        classes.append(" | ".join(names))
    if not found:
        raise UserError("there is no class name: give at least one")
    doubled = [
        f"{name} ({where}s {', '.join(map(str, at))})" for name, at in found.items() if len(at) > 1
    ]
    if doubled:
        raise UserError(f"{source}: given more than once: {'; '.join(doubled)}")
    return classes
