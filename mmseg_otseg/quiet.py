"""Hides messages of other packages that are harmless here."""

from __future__ import annotations

import contextlib
import io
import sys
import warnings
from collections.abc import Iterator

#: What mmseg prints when a storage service that this project does not use is not installed.
HARMLESS_LINES = ("Could not import OneDL",)
#: Regular expressions that match the beginning of a warning.
HARMLESS_WARNINGS = (
    "Fail to import ``MultiScaleDeformableAttention``",  # not used by any model here
    "The draw is False, it means that the hook for visualization",  # intended
    "The shape of value will convert from",  # mmengine makes (H, W) to (1, H, W)
    "`broadcast_buffers` is deprecated",  # mmengine names it that way
    r"This DataLoader will create \d+ worker processes",  # on machines with few cores
    "Setting (OMP|MKL)_NUM_THREADS environment variable",
)


@contextlib.contextmanager
def quiet_imports() -> Iterator[None]:
    """Hide printed :data:`HARMLESS_LINES` inside, and :data:`HARMLESS_WARNINGS` from now on."""
    for message in HARMLESS_WARNINGS:
        warnings.filterwarnings("ignore", message)
    printed = io.StringIO()
    try:
        with contextlib.redirect_stdout(printed):
            yield
    finally:
        for line in printed.getvalue().splitlines(keepends=True):
            if line.strip() not in HARMLESS_LINES:
                sys.stdout.write(line)
