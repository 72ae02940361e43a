#!/usr/bin/env python
"""Segment images with any class names: ``mmseg-otseg segment``."""

from mmseg_otseg_cli import run
from mmseg_otseg_cli.segment import main

if __name__ == "__main__":
    run(main)
