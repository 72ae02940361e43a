"""Say what the CLIP of a config is, and whether its patches agree with its text.

Nothing is trained. With the config's validation data, each layer's map of cosines is compared with
the labels (mIoU); with --images, its mean is compared with the global score (correlation). Chance
is measured by giving the names in other orders.
"""

from __future__ import annotations

import argparse
import textwrap
from pathlib import Path

from .config import load_config
from .options import config_parser

WIDTH = 100


def parse_args() -> argparse.Namespace:
    parser = config_parser(__doc__)
    parser.add_argument(
        "--images", type=Path, help="image or folder, in place of the validation data"
    )
    parser.add_argument("--classes", help="class names, in place of the config's, for --images")
    parser.add_argument("--number", type=int, default=50, help="how many images (default: 50)")
    args = parser.parse_args()
    if args.classes and not args.images:
        parser.error("--classes goes with --images: the validation data have classes of their own")
    if args.number < 1:
        parser.error("--number must be at least 1")
    return args


def main() -> None:
    args = parse_args()
    cfg = load_config(args, *(() if args.images else ("val",)))
    from mmengine.registry import init_default_scope
    from mmseg.registry import MODELS
    from prettytable import PrettyTable

    from mmseg_otseg.checks.clip import (
        PatchCheck,
        describe_clip,
        labeled_samples,
        read_images,
        verdict,
    )
    from mmseg_otseg.engine.hooks.stages import class_split
    from mmseg_otseg.errors import UserError
    from mmseg_otseg.imaging import class_list, find_images
    from mmseg_otseg.inference.vocabulary import split_classes
    from mmseg_otseg.models.clip import shared_clip

    init_default_scope(cfg.get("default_scope", "mmseg"))
    clip = dict(cfg.model.get("clip") or cfg.model.backbone.clip)
    with shared_clip():
        model = MODELS.build(cfg.model).eval()
        split = class_split(model)
        if split is None:
            raise UserError(f"the model of {args.config} has no class names")
        names = class_list(args.classes, split_classes()) if args.classes else split.classes
        check = PatchCheck(clip, names, model.data_preprocessor)
    table = PrettyTable(header=False, align="l")
    for line in describe_clip(model, clip, check.backbone).items():
        table.add_row([line[0], textwrap.fill(str(line[1]), WIDTH - 24)])
    print(table)
    if args.images:
        levels = check.on_images(read_images(find_images([str(args.images)])[0][: args.number]))
        measure = "correlation with the global score"
    else:
        levels = check.on_labels(labeled_samples(cfg, split, args.number))
        measure = "mIoU of the map"
    table = PrettyTable(["layer", measure, "names in other orders", "better than"], align="r")
    for level in levels:
        beaten = f"{100 * level.beaten:.1f} % of them"
        table.add_row([level.layer, f"{level.score:.3f}", f"{level.chance:.3f}", beaten])
    print(table)
    trained = clip.get("pretrained") is not None
    print(textwrap.fill(verdict(levels, len(names), trained), WIDTH, break_long_words=False))
