#!/usr/bin/env python
"""Say what a CLIP is and whether it can segment: ``mmseg-otseg check-clip``."""

from mmseg_otseg_cli import run
from mmseg_otseg_cli.check_clip import main

if __name__ == "__main__":
    run(main)
