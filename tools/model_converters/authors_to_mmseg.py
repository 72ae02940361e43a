"""Convert a checkpoint of the authors' released OTSeg code for this package's configs."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # also where nothing is installed

from mmengine.logging import MMLogger

from mmseg_otseg.apis import convert_authors_checkpoint


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("src", help="the authors' checkpoint")
    parser.add_argument("dst", help="the checkpoint to write, for tools/test.py with configs/otseg")
    args = parser.parse_args()
    MMLogger.get_instance("convert")
    try:
        convert_authors_checkpoint(args.src, args.dst)
    except (OSError, ValueError) as error:
        parser.error(str(error))


if __name__ == "__main__":
    main()
