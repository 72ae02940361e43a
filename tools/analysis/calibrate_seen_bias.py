#!/usr/bin/env python
"""Choose the seen-class bias: ``mmseg-otseg calibrate``."""

from mmseg_otseg_cli import run
from mmseg_otseg_cli.calibrate_seen_bias import main

if __name__ == "__main__":
    run(main)
