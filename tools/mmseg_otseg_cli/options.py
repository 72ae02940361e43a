"""Options that the tools share, and how the values of ``--cfg-options`` are read."""

from __future__ import annotations

import argparse
import ast
import re
from typing import Any

import yaml

from .errors import TRACEBACK, CommandError


class Loader(yaml.SafeLoader):
    """YAML in which 1e-5 is a number; PyYAML wants it to be 1.0e-5."""


Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"[-+]?\d+(\.\d*)?[eE][-+]?\d+$"), list("-+0123456789")
)


class SettingsAction(argparse.Action):
    """mmengine's ``DictAction``, whose values may hold blanks, quotes and dicts."""

    def __call__(self, parser: Any, namespace: Any, values: Any, option: str | None = None) -> None:
        settings = dict(getattr(namespace, self.dest) or {})
        for text in values:
            key, equals, value = text.partition("=")
            if not equals:
                parser.error(f"{option} takes KEY=VALUE, not '{text}'")
            settings[key] = parse_value(value)
        setattr(namespace, self.dest, settings)


def parse_value(text: str) -> Any:
    """Read a value as Python does, or else as YAML does, where words need no quotes.

    Example:
        >>> parse_value("[red cross, 'road, paved']")
        ['red cross', 'road, paved']
        >>> parse_value("cow,sheep")
        ['cow', 'sheep']

    Args:
        text: A number, ``True``, ``None``, a word or path; a list, tuple or dict in brackets; or
            several values with commas between them, which make a list.

    Raises:
        CommandError: If a bracket or a quote is not closed, or a comma divides what is in
            parentheses.
    """
    text = text.strip()
    try:
        value = ast.literal_eval(text)
        return list(value) if isinstance(value, tuple) and not text.startswith("(") else value
    except (ValueError, SyntaxError, TypeError):
        pass
    if text[:1] not in ("[", "{"):
        if "," not in text:
            return {"true": True, "false": False}.get(text, text)
        text = f"[{text}]"
    try:
        value = yaml.load(text, Loader)
    except yaml.YAMLError as error:
        raise CommandError(
            f"the value {text} cannot be read ({getattr(error, 'problem', error)}): put quotes "
            "around what holds brackets, quotes or colons"
        ) from None
    for word in value if isinstance(value, list) else ():
        if isinstance(word, str) and word.count("(") != word.count(")"):
            raise CommandError(
                f"the value {text} has a comma in parentheses, which would divide it after "
                f"{word!r}: put quotes around what holds a comma"
            )
    return value


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
        action=SettingsAction,
        metavar="KEY=VALUE",
        help='settings that override the config, e.g. train_cfg.max_iters=100 key="[a,b c]"',
    )
