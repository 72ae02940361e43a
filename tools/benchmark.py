#!/usr/bin/env python
"""Test a model on every open-vocabulary data set: ``mmseg-otseg benchmark``."""

from mmseg_otseg_cli import run
from mmseg_otseg_cli.benchmark import main

if __name__ == "__main__":
    run(main)
