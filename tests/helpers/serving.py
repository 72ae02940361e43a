"""The page, served by a process of its own."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from tests.helpers.paths import ROOT

START = 300  # seconds, on a busy machine


@contextmanager
def served(arguments: Sequence[str], folder: Path) -> Iterator[str]:
    """Run ``tools/web_demo.py`` with these arguments on a free port, and yield its address."""
    command = [sys.executable, str(ROOT / "tools" / "web_demo.py"), *arguments]
    file = folder / "web_demo.log"
    with file.open("w") as log:
        server = subprocess.Popen(
            [*command, "--port", "0", "--device", "cpu"],
            env={**os.environ, "OMP_NUM_THREADS": "1"},
            stdout=log,
            stderr=subprocess.STDOUT,
        )
    try:
        for _ in range(5 * START):
            if found := re.search(r"open (http\S+)", file.read_text()):
                break
            assert server.poll() is None, file.read_text()[-2000:]
            time.sleep(0.2)
        assert found, file.read_text()[-2000:]
        yield found[1]
    finally:
        server.terminate()
        server.wait(30)
