"""Choose the seen-class bias of a trained model on the validation data.

Predicts every image once and evaluates all biases on the same probabilities. Writes the table as
``seen_bias.json`` to the work folder, and names the best.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from .config import load_config
from .options import add_launcher, config_parser

METRICS = {"mIoU_S": "mIoU(S)", "mIoU_U": "mIoU(U)", "hIoU": "hIoU"}


def parse_args() -> argparse.Namespace:
    parser = config_parser(__doc__)
    add_launcher(parser)
    parser.add_argument("checkpoint", nargs="?", help="checkpoint. Default: initial weights")
    parser.add_argument(
        "--write",
        nargs="?",
        const="",
        metavar="CKPT",
        help="store the best bias in the checkpoint, or in a copy CKPT of it; models whose config "
        "names no bias then use it",
    )
    args = parser.parse_args()
    if args.write is not None and args.checkpoint is None:
        parser.error("--write stores the bias in a checkpoint: name the one to calibrate")
    return args


def main() -> None:
    args = parse_args()
    cfg = load_config(args, "val")
    from mmengine.dist import is_main_process
    from prettytable import PrettyTable

    from mmseg_otseg.engine import process_group
    from mmseg_otseg.engine.checkpoint import check_target
    from mmseg_otseg.evaluation import best_bias, store_seen_bias, sweep_seen_bias

    if args.write is not None:  # before the work, not after it
        check_target(args.write or args.checkpoint)
    with process_group(cfg):
        table = sweep_seen_bias(cfg, args.checkpoint)
        if not is_main_process():
            return
    best = best_bias(table)
    text = PrettyTable(["seen-class bias", *METRICS.values()])
    for row in (row for index, row in enumerate(table) if index % 15 == 0 or row is best):
        text.add_row([f"{row['seen_bias']:.4g}", *(row[name] for name in METRICS)])
    print(text)
    use = f"use it with --cfg-options model.decode_head.seen_bias={best['seen_bias']:.4g}"
    if args.write is not None:
        target = args.write or args.checkpoint
        store_seen_bias(cfg, args.checkpoint, best["seen_bias"], target)
        use = f"stored in {target}, from where testing and segmenting take it"
    print(
        f"best on the validation data: seen_bias={best['seen_bias']:.4g}, hIoU {best['hIoU']:.2f}; "
        f"{use}"
    )
    report = {"config": args.config, "checkpoint": args.checkpoint, "best": best, "table": table}
    file = Path(cfg.work_dir, "seen_bias.json")
    file.write_text(json.dumps(report, indent=2))
    print(f"written: {file}")
