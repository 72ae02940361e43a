#!/usr/bin/env python
"""Count parameters and multiply-adds: ``mmseg-otseg flops``."""

from mmseg_otseg_cli import run
from mmseg_otseg_cli.get_flops import main

if __name__ == "__main__":
    run(main)
