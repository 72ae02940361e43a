"""Segment images into classes named on the command line."""

from __future__ import annotations

import argparse
from pathlib import Path

from .config import fetch_weights, read_config
from .errors import CommandError
from .options import add_cfg_options, new_parser

DEFAULT = "training_free/names"


def fraction(text: str) -> float:
    value = float(text)
    if not 0 <= value <= 1:
        raise argparse.ArgumentTypeError(f"{text} is not within 0..1")
    return value


def positive(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{text} is not 1 or more")
    return value


def parse_args() -> argparse.Namespace:
    options = new_parser(__doc__)
    options.add_argument("images", nargs="+", metavar="IMG", help="images, or folders of them")
    options.add_argument(
        "--classes",
        help='names, e.g. "cat, sofa | couch": | is between several names of a class, and a name '
        "with a comma is in double quotes. Default: those of the config",
    )
    options.add_argument(
        "--out", required=True, metavar="DIR", help="masks go to DIR/pred, overlays to DIR/vis"
    )
    model = options.add_argument_group(
        "the model", "without any of these options: the maps of a CLIP that nothing was trained for"
    )
    model.add_argument(
        "--model", metavar="CONFIG", dest="config", help=f"config. Default: {DEFAULT}"
    )
    model.add_argument(
        "--weights", metavar="CKPT", help="checkpoint file, URL, or hf://OWNER/NAME[/FILE]"
    )
    model.add_argument("--clip", metavar="NAME", help="CLIP of open_clip, such as ViT-L-14")
    model.add_argument(
        "--clip-weights",
        metavar="WEIGHTS",
        help="its tag in open_clip, a file, or hf://OWNER/NAME[/FILE]",
    )
    model.add_argument(
        "--precision",
        choices=["fp32", "bf16", "fp16"],
        help="precision of CLIP's towers. Default: the config's, or fp32",
    )
    model.add_argument("--device", help="e.g. cuda:0 or cpu. Default: a GPU if there is one")
    add_cfg_options(model)
    masks = options.add_argument_group("the masks")
    masks.add_argument(
        "--none-below",
        type=fraction,
        metavar="P",
        help='pixels whose best value is below P become "none of these"',
    )
    masks.add_argument(
        "--bias", type=float, help="taken off the values of the classes that had masks in training"
    )
    masks.add_argument(
        "--refine",
        action=argparse.BooleanOptionalAction,
        help="move the edges of the masks to edges of the image. Default: as the config says",
    )
    masks.add_argument(
        "--layout",
        choices=["masks", "own_data"],
        default="masks",
        help="own_data: a folder to correct and to train with, see configs/own_data",
    )
    masks.add_argument(
        "--format",
        choices=["png", "coco"],
        default="png",
        help="coco: annotations.json with run lengths as well, for labeling tools",
    )
    masks.add_argument("--no-overlays", action="store_true", help="write the masks only")
    masks.add_argument(
        "--opacity", type=fraction, default=0.6, help="opacity of overlays. Default: 0.6"
    )
    masks.add_argument(
        "--batch-size",
        type=positive,
        default=1,
        help="images of equal size per batch. Default: 1",
    )
    args = options.parse_args()
    if args.config is None and args.weights is not None:
        options.error("--weights needs --model, the config of the checkpoint")
    if args.config is None and args.classes is None:
        options.error("without --model, name the classes with --classes")
    return args


def main() -> None:
    args = parse_args()
    args.checkpoint, args.config = args.weights, args.config or DEFAULT
    cfg = read_config(args)
    if not any(Path(image).exists() for image in args.images):
        raise FileNotFoundError(f"no such image or folder: {', '.join(args.images)}")
    if args.weights is None and cfg.get("train_dataloader"):
        raise CommandError(f"{args.config} describes a model that is trained: give its --weights")
    clip = dict(model=args.clip, pretrained=args.clip_weights)
    cfg.model.clip.update({key: value for key, value in clip.items() if value is not None})
    if args.bias is not None:
        cfg.model.decode_head.seen_bias = args.bias
    fetch_weights(cfg)
    from mmengine.logging import MMLogger
    from rich.progress import track

    from mmseg_otseg.imaging import class_list, find_images
    from mmseg_otseg.inference import OTSegInferencer
    from mmseg_otseg.inference.vocabulary import split_classes

    logger = MMLogger.get_instance("segment")
    total = len(find_images(args.images)[0])
    if args.weights is None and args.classes is not None:  # spares encoding the config's names
        cfg.model.split = dict(classes=class_list(args.classes, split_classes()))
    inferencer = OTSegInferencer(cfg, args.weights, device=args.device, precision=args.precision)
    if cfg.get("about"):
        logger.info(cfg.about)
    results = inferencer.segment(
        args.images,
        classes=args.classes,
        none_below=args.none_below,
        out_dir=args.out,
        batch_size=args.batch_size,
        opacity=args.opacity,
        overlays=not args.no_overlays,
        refine=args.refine,
        layout=args.layout,
        coco=args.format == "coco",
    )
    skipped = []
    for result in track(results, "Segmenting", total=total):
        classes = result.classes
        if result.reason:
            skipped.append(f"{result.name} ({result.reason})")
    legend = ", ".join(f"{index} {name}" for index, name in enumerate(classes))
    logger.info(f"{total - len(skipped)} images segmented into {args.out}")
    logger.info(f"values in the masks: {legend}")
    if skipped:
        logger.warning(f"{len(skipped)} images skipped: {'; '.join(skipped)}")
