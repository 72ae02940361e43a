"""The command-line tools: ``mmseg-otseg train CONFIG`` is ``python tools/train.py CONFIG``.

Each module with a ``main`` is one command. Nothing slow is imported at the top of a module: help, a
mistyped option and a missing data folder are answered at once, while ``import mmseg_otseg`` takes
seconds. Functions import what they need.
"""

from .errors import run

__all__ = ["run"]
