#!/usr/bin/env python
"""Train a model: ``mmseg-otseg train``."""

from mmseg_otseg_cli import run
from mmseg_otseg_cli.train import main

if __name__ == "__main__":
    run(main)
