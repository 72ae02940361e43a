"""Options that the tools share, and how the values of ``--cfg-options`` are read."""

from __future__ import annotations

import argparse
import ast
from collections.abc import Iterator
from typing import Any

from .errors import TRACEBACK, CommandError

BRACKETS = {"[": "]", "(": ")", "{": "}"}
WORDS = {"true": True, "True": True, "false": False, "False": False, "None": None}


class Settings(argparse.Action):
    """mmengine's ``DictAction``, which takes blanks, quotes and dicts in values too."""

    def __call__(self, parser: Any, namespace: Any, values: Any, option: str | None = None) -> None:
        settings = dict(getattr(namespace, self.dest) or {})
        for text in values:
            key, equals, value = text.partition("=")
            if not equals:
                parser.error(f"{option} takes KEY=VALUE, not '{text}'")
            try:
                settings[key] = parse_value(value)
            except CommandError as error:
                raise CommandError(f"{option} {key}: {error}") from None
        setattr(namespace, self.dest, settings)


def parse_value(text: str) -> Any:
    """Read a value as Python does, where quotes around words may be left out.

    Example:
        >>> parse_value("[red cross, road (paved, grey)]")
        ['red cross', 'road (paved, grey)']
        >>> parse_value("dict(max_norm=1, norm_type=2.0)")
        {'max_norm': 1, 'norm_type': 2.0}

    Args:
        text: A number, ``True``, ``None``, a word or path; a list, tuple or dict of such values in
            brackets; or several values with commas between them, which make a list.

    Returns:
        The value.

    Raises:
        CommandError: If a bracket or a quote is not closed.
    """
    text = text.strip()
    try:
        value = ast.literal_eval(text)
        return list(value) if isinstance(value, tuple) and not text.startswith("(") else value
    except (ValueError, SyntaxError, TypeError):
        pass
    if "," not in text and text[:1] not in BRACKETS and not text.startswith("dict("):
        return _word(text)
    parts = list(_split(text, ","))
    if len(parts) > 1:
        return [parse_value(part) for part in parts]
    if text.startswith("dict(") and text.endswith(")"):
        return dict(_pair(part, "=") for part in _split(text[5:-1], ","))
    if text[0] not in BRACKETS or not text.endswith(BRACKETS[text[0]]):
        return _word(text)
    inner = _split(text[1:-1], ",")
    if text[0] == "{":
        return dict(_pair(part, ":") for part in inner)
    values = [parse_value(part) for part in inner]
    return tuple(values) if text[0] == "(" else values


def _word(text: str) -> Any:
    if text in WORDS:
        return WORDS[text]
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            pass
    return text


def _pair(text: str, between: str) -> tuple[Any, Any]:
    key, *rest = _split(text, between)
    if not rest:
        raise CommandError(f"'{text}' is not a key, '{between}' and a value")
    return parse_value(key), parse_value(text[len(key) + 1 :])


def _split(text: str, separator: str) -> Iterator[str]:
    """The parts between separators outside of brackets and quotes; an empty last one is dropped."""
    start, open_brackets, quote = 0, [], ""
    for index, character in enumerate(text):
        if quote:
            quote = "" if character == quote else quote
        elif character in "'\"" and text[:index].rstrip()[-1:] in ",=:([{":  # not an apostrophe
            quote = character
        elif character in BRACKETS:
            open_brackets.append(BRACKETS[character])
        elif character in BRACKETS.values():
            if not open_brackets or open_brackets.pop() != character:
                raise CommandError(f"'{character}' closes no bracket in '{text}'")
        elif character == separator and not open_brackets:
            yield text[start:index]
            start = index + 1
    if quote or open_brackets:
        raise CommandError(f"{quote or open_brackets[-1]} is missing in '{text}'")
    if text[start:].strip():
        yield text[start:]


def new_parser(description: str | None) -> argparse.ArgumentParser:
    """A parser whose ``--help`` explains how to see tracebacks."""
    lines = (description or "").splitlines()
    return argparse.ArgumentParser(
        description=lines[0] if lines else None,
        epilog=f"Set {TRACEBACK}=1 to see the traceback of an error.",
    )


def config_parser(description: str | None) -> argparse.ArgumentParser:
    """A parser with the options that mmseg's own tools have in common."""
    parser = new_parser(description)
    parser.add_argument("config", help="config file, or the name of an installed config")
    parser.add_argument("--work-dir", help="folder for logs, metrics and checkpoints")
    add_cfg_options(parser)
    return parser


def add_launcher(parser: argparse.ArgumentParser) -> None:
    """Add what tools that run in several processes take."""
    parser.add_argument(
        "--launcher",
        choices=["none", "pytorch", "slurm", "mpi"],
        default="none",
        help="what started this process if it is one of several",
    )
    # Launchers older than torchrun pass this option instead of setting LOCAL_RANK.
    parser.add_argument("--local_rank", "--local-rank", type=int, default=0, help=argparse.SUPPRESS)
    parser.add_argument(
        "--check-only",
        action="store_true",
        help="check the config and the data, download CLIP's weights if need be, and stop",
    )


def add_cfg_options(parser: argparse._ActionsContainer) -> None:
    """Add ``--cfg-options``."""
    parser.add_argument(
        "--cfg-options",
        nargs="+",
        action=Settings,
        metavar="KEY=VALUE",
        help='settings that override the config, e.g. train_cfg.max_iters=100 key="[a,b c]"',
    )
