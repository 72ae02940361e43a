#!/usr/bin/env python
"""Write the label files of an open-vocabulary data set: ``mmseg-otseg convert-data``."""

from mmseg_otseg_cli import run
from mmseg_otseg_cli.convert_data import main

if __name__ == "__main__":
    run(main)
