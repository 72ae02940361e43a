#!/usr/bin/env python
"""Write ONNX files: ``mmseg-otseg export``."""

from mmseg_otseg_cli import run
from mmseg_otseg_cli.export import main

if __name__ == "__main__":
    run(main)
