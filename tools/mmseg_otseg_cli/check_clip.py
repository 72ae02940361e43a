"""Say what the CLIP of a config is, and whether its patches agree with its text.

Nothing is trained. Each layer's map of cosines is compared with the labels of the config's
validation data (mIoU). Chance is measured by giving the names in other orders.
"""

from __future__ import annotations

import argparse
import textwrap

from .config import load_config
from .options import config_parser

WIDTH = 100


def parse_args() -> argparse.Namespace:
    parser = config_parser(__doc__)
    parser.add_argument("--number", type=int, default=50, help="how many images (default: 50)")
    return parser.parse_args()


def main() -> None:
    args = parse_args()
    cfg = load_config(args, "val")
    from mmengine.registry import init_default_scope
    from prettytable import PrettyTable

    from mmseg_otseg.checks.clip import check_clip

    init_default_scope(cfg.get("default_scope", "mmseg"))
    report = check_clip(cfg, args.number)
    table = PrettyTable(header=False, align="l")
    for title, text in report.parts.items():
        table.add_row([title, textwrap.fill(text, WIDTH - 24)])
    print(table)
    header = ["layer", "mIoU of the map", "names in other orders", "better than"]
    table = PrettyTable(header, align="r")
    for level in report.levels:
        beaten = f"{100 * level.beaten:.1f} % of them"
        table.add_row([level.layer, f"{level.score:.3f}", f"{level.chance:.3f}", beaten])
    print(table)
    print(textwrap.fill(report.advice, WIDTH, break_long_words=False))
