#!/usr/bin/env python
"""Try a model in the browser: ``mmseg-otseg web-demo``."""

from mmseg_otseg_cli import run
from mmseg_otseg_cli.web_demo import main

if __name__ == "__main__":
    run(main)
