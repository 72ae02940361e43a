"""Where things are in a checkout."""

from pathlib import Path

ROOT = Path(__file__).parents[2]
#: Arrays from the authors' code.
DATA = ROOT / "tests" / "data"
