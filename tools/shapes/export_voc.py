#!/usr/bin/env python
"""Write shapes scenes to disk in the layout of PASCAL VOC 2012.

The result can stand in for VOC wherever only the layout and the class count matter, for instance to
try a VOC config: ``python tools/shapes/export_voc.py data --train 1464 --aug 9118 --val 1449``.
"""

from __future__ import annotations

from mmseg_otseg_cli import run
from mmseg_otseg_cli.options import new_parser


def main() -> None:
    """Command line."""
    parser = new_parser(__doc__)
    parser.add_argument("out", help="the folder `data`; VOCdevkit/VOC2012 is made below it")
    parser.add_argument("--train", type=int, default=1464, help="number of training scenes")
    parser.add_argument("--aug", type=int, default=0, help="number of further training scenes")
    parser.add_argument("--val", type=int, default=200, help="number of validation scenes")
    parser.add_argument("--size", type=int, default=64, help="image side in pixels")
    args = parser.parse_args()
    from mmengine.logging import MMLogger

    from mmseg_otseg.datasets.shapes import export_voc

    root = export_voc(args.out, args.train, args.val, args.aug, args.size)
    MMLogger.get_instance("export_voc").info(f"wrote {root}")


if __name__ == "__main__":
    run(main)
