"""Segment images into classes named on the command line.

An exported model runs without torch and mmengine, which are imported for the others only.
"""

from __future__ import annotations

import argparse
import logging
import os
from pathlib import Path
from typing import TYPE_CHECKING

from .config import check_weights, fetch_weights, read_config
from .errors import CommandError
from .options import add_cfg_options, new_parser

if TYPE_CHECKING:
    from mmseg_otseg.inference import Segmenter

DEFAULT = "training_free/names"


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
        "--model",
        metavar="CONFIG",
        dest="config",
        help=f"config, or a folder that tools/export.py wrote. Default: {DEFAULT}",
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
    model.add_argument(
        "--device",
        help="e.g. cuda:0 or cpu; of an exported model the provider of ONNX Runtime, such as "
        "CPUExecutionProvider. Default: a GPU if there is one",
    )
    add_cfg_options(model)
    masks = options.add_argument_group("the masks")
    masks.add_argument(
        "--none-below",
        type=float,
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
    args = options.parse_args()
    if args.none_below is not None and not 0 <= args.none_below <= 1:
        options.error("--none-below is a value within 0..1")
    if args.config is None and args.weights is not None:
        options.error("--weights needs --model, the config of the checkpoint")
    if args.config is None and args.classes is None:
        options.error("without --model, name the classes with --classes")
    args.exported = args.config is not None and Path(args.config).is_dir()
    of_configs = (args.weights, args.clip, args.clip_weights, args.precision, args.cfg_options)
    if args.exported and any(of_configs):
        options.error("an exported model takes --device and --bias alone of the model's options")
    return args


def model_of_config(args: argparse.Namespace) -> Segmenter:
    """The model of a config in torch."""
    args.checkpoint, args.config = args.weights, args.config or DEFAULT
    cfg = read_config(args)
    check_weights(args.config, cfg, args.weights)
    clip = dict(model=args.clip, pretrained=args.clip_weights)
    cfg.model.clip.update({key: value for key, value in clip.items() if value is not None})
    if args.bias is not None:
        cfg.model.decode_head.seen_bias = args.bias
    fetch_weights(cfg)
    from mmseg_otseg.imaging import class_list
    from mmseg_otseg.inference import OTSegInferencer
    from mmseg_otseg.structures.class_split import KNOWN_CLASSES

    if args.weights is None and args.classes is not None:  # spares encoding the config's names
        cfg.model.split = dict(classes=class_list(args.classes, KNOWN_CLASSES))
    if cfg.get("about"):
        logging.getLogger("mmseg_otseg").info(cfg.about)
    return OTSegInferencer(cfg, args.weights, device=args.device, precision=args.precision)


def check_out(folder: Path) -> None:
    """Check that a folder can be written to, or created, before the model is loaded.

    Raises:
        CommandError: If it cannot.
    """
    nearest = next(path for path in (folder, *folder.absolute().parents) if path.exists())
    if not nearest.is_dir() or not os.access(nearest, os.W_OK):
        raise CommandError(f"--out {folder}: {nearest} is no folder that can be written to")


def main() -> None:
    args = parse_args()
    if not any(Path(image).exists() for image in args.images):
        raise FileNotFoundError(f"no such image or folder: {', '.join(args.images)}")
    check_out(Path(args.out))
    logger = logging.getLogger("mmseg_otseg")
    logger.setLevel(logging.INFO)
    logging.basicConfig(format="%(message)s")
    from tqdm import tqdm
    from tqdm.contrib.logging import logging_redirect_tqdm

    from mmseg_otseg.imaging import find_images
    from mmseg_otseg.inference import OTSegRuntime

    total = len(find_images(args.images)[0])  # an empty folder is reported at once
    segmenter: Segmenter
    if args.exported:
        providers = None if args.device is None else [args.device]
        segmenter = OTSegRuntime(args.config, seen_bias=args.bias, providers=providers)
    else:
        segmenter = model_of_config(args)
    results = segmenter.segment(
        args.images,
        classes=args.classes,
        none_below=args.none_below,
        out_dir=args.out,
        overlays=not args.no_overlays,
        refine=args.refine,
        layout=args.layout,
        coco=args.format == "coco",
    )
    skipped = 0
    with logging_redirect_tqdm():
        for result in tqdm(results, "Segmenting", total):
            classes = result.classes
            skipped += result.mask is None
    legend = ", ".join(f"{index} {name}" for index, name in enumerate(classes))
    logger.info(f"{total - skipped} images segmented into {args.out}")
    logger.info(f"values in the masks: {legend}")
    if skipped:
        logger.warning(f"{skipped} images skipped, which the warnings above name")
