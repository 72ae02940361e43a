#!/usr/bin/env python
"""Test a checkpoint: ``mmseg-otseg test``."""

from mmseg_otseg_cli import run
from mmseg_otseg_cli.test import main

if __name__ == "__main__":
    run(main)
