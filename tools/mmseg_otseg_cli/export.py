"""Export a model as ONNX files that take any class names.

    python tools/export.py CONFIG [CHECKPOINT] OUT_DIR

The folder holds the segmenter, the text encoder with its tokenizer, the config's vocabulary, and a
description of them for programs. ``mmseg-otseg segment --model OUT_DIR`` runs it without torch.
"""

from __future__ import annotations

import argparse

from .config import load_config
from .errors import CommandError
from .options import add_cfg_options, new_parser


def parse_args() -> argparse.Namespace:
    options = new_parser(__doc__)
    options.add_argument("config", help="config file, or the name of an installed config")
    options.add_argument(
        "checkpoint", nargs="?", help="checkpoint; not needed if the model has nothing to train"
    )
    options.add_argument("out", metavar="OUT_DIR", help="folder to write; must not exist yet")
    options.add_argument(
        "--height", type=int, help="height of the input images. Default: the config's windows"
    )
    options.add_argument("--width", type=int, help="width of the input images")
    options.add_argument(
        "--dynamic",
        action="store_true",
        help="accept images of any multiple of the patch",
    )
    options.add_argument(
        "--int8",
        action="store_true",
        help="round the segmenter's weights to 8 bits, for speed: labels change a little",
    )
    add_cfg_options(options)
    args = options.parse_args()
    if args.dynamic and (args.height or args.width):
        options.error("--dynamic takes any size: leave out --height and --width")
    if (args.height is None) != (args.width is None):
        options.error("give both --height and --width")
    return args


def main() -> None:
    args = parse_args()
    cfg = load_config(args)
    from mmengine.logging import MMLogger

    from mmseg_otseg import hub
    from mmseg_otseg.export import export_folder
    from mmseg_otseg.inference import loading

    logger = MMLogger.get_instance("export")
    if str(args.checkpoint).startswith(hub.SCHEME):
        args.checkpoint = str(hub.fetch(args.checkpoint))
    cfg = loading.load_config(cfg)
    size = None
    if args.height is not None:
        size = args.height, args.width
    elif not args.dynamic and cfg.model.test_cfg.get("mode") == "slide":
        size = tuple(cfg.model.test_cfg.crop_size)
    model = loading.load_model(cfg, args.checkpoint)
    if args.checkpoint is None and any(p.requires_grad for p in model.parameters()):
        raise CommandError(f"{args.config} has weights that are trained: give a checkpoint")
    differences = export_folder(
        model,
        cfg,
        args.out,
        size=size,
        int8=args.int8,
        checkpoint=args.checkpoint,
    )
    logger.info(
        f"largest differences from the model: text {differences['text']:.1e}, probabilities "
        f"{differences['probabilities']:.1e}; {differences['labels']:.2%} of the labels differ"
    )
