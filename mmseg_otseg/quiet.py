"""Messages of other packages that are known to be harmless here, and concern no user."""

from __future__ import annotations

import contextlib
import io
import sys
import warnings
from collections.abc import Iterator

#: What mmseg prints when a storage service that this project has no use for is not installed.
HARMLESS_LINES = ("Could not import OneDL",)
#: Beginnings of warnings, as regular expressions.
HARMLESS_WARNINGS = (
    "Fail to import ``MultiScaleDeformableAttention``",  # no model here has any
    "The draw is False, it means that the hook for visualization",  # so it is meant
    "The shape of value will convert from",  # mmengine makes (H, W) to (1, H, W)
    r"This DataLoader will create \d+ worker processes",  # on machines of few cores
    "Setting (OMP|MKL)_NUM_THREADS environment variable",
)


@contextlib.contextmanager
def quiet_imports() -> Iterator[None]:
    """Drop :data:`HARMLESS_LINES` of what is printed, and from now on :data:`HARMLESS_WARNINGS`."""
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
