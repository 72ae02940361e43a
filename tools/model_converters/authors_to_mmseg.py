#!/usr/bin/env python
"""Convert the authors' checkpoints: ``mmseg-otseg convert``."""

from mmseg_otseg_cli import run
from mmseg_otseg_cli.authors_to_mmseg import main

if __name__ == "__main__":
    run(main)
