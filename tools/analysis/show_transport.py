#!/usr/bin/env python
"""Draw predictions and plans: ``mmseg-otseg show-transport``."""

from mmseg_otseg_cli import run
from mmseg_otseg_cli.show_transport import main

if __name__ == "__main__":
    run(main)
