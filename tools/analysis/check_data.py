#!/usr/bin/env python
"""Find mistakes in data before training: ``mmseg-otseg check-data``."""

from mmseg_otseg_cli import run
from mmseg_otseg_cli.check_data import main

if __name__ == "__main__":
    run(main)
