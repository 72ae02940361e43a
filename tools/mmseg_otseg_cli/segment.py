"""Segment images into classes named on the command line."""

from __future__ import annotations

import argparse
from pathlib import Path

from .config import find_config
from .options import new_parser


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
        help='names, e.g. "cat, sofa"; put a name with a comma in double quotes. '
        "Default: those of the config",
    )
    options.add_argument("--model", required=True, metavar="CONFIG", help="config file")
    options.add_argument("--weights", required=True, metavar="CKPT", help="checkpoint")
    options.add_argument(
        "--out", required=True, metavar="DIR", help="masks go to DIR/pred, overlays to DIR/vis"
    )
    options.add_argument(
        "--none-below",
        type=fraction,
        metavar="P",
        help='pixels whose best value is below P become "none of these"',
    )
    options.add_argument("--no-overlays", action="store_true", help="write the masks only")
    options.add_argument(
        "--opacity", type=fraction, default=0.6, help="opacity of overlays. Default: 0.6"
    )
    options.add_argument(
        "--batch-size",
        type=positive,
        default=1,
        help="images of equal size per batch. Default: 1",
    )
    options.add_argument(
        "--precision",
        choices=["fp32", "bf16", "fp16"],
        help="precision of CLIP's towers. Default: the config's, or fp32",
    )
    options.add_argument("--device", help="e.g. cuda:0 or cpu. Default: a GPU if there is one")
    return options.parse_args()


def main() -> None:
    args = parse_args()
    args.model = find_config(args.model)
    if not Path(args.weights).is_file():
        raise FileNotFoundError(f"the checkpoint {args.weights} does not exist")
    if not any(Path(image).exists() for image in args.images):
        raise FileNotFoundError(f"no such image or folder: {', '.join(args.images)}")
    from mmengine.logging import MMLogger
    from rich.progress import track

    from mmseg_otseg.imaging import find_images
    from mmseg_otseg.inference import OTSegInferencer

    logger = MMLogger.get_instance("segment")
    total = len(find_images(args.images)[0])
    inferencer = OTSegInferencer(
        args.model, args.weights, device=args.device, precision=args.precision
    )
    results = inferencer.segment(
        args.images,
        classes=args.classes,
        none_below=args.none_below,
        out_dir=args.out,
        batch_size=args.batch_size,
        opacity=args.opacity,
        overlays=not args.no_overlays,
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
