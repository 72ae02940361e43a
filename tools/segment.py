"""Segment pictures into classes that are named on the command line."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # also where nothing is installed

from tools.cli import new_parser, run


def parser() -> argparse.ArgumentParser:
    options = new_parser(__doc__)
    options.add_argument("pictures", nargs="+", metavar="IMG", help="pictures, or one folder")
    options.add_argument("--classes", help='names, e.g. "cat, sofa". Default: those of the config')
    options.add_argument("--model", required=True, metavar="CONFIG", help="config file")
    options.add_argument("--weights", required=True, metavar="CKPT", help="checkpoint")
    options.add_argument("--out", required=True, metavar="DIR", help="masks and overlays go here")
    options.add_argument(
        "--none-below",
        type=float,
        metavar="P",
        help='pixels whose best value is below P become "none of these"',
    )
    options.add_argument("--batch-size", type=int, default=1)
    options.add_argument("--opacity", type=float, default=0.6, help="of the classes in overlays")
    options.add_argument("--device", help="e.g. cuda:0 or cpu. Default: the GPU if there is one")
    return options


def main() -> None:
    args = parser().parse_args()
    names = None
    if args.classes is not None:
        names = [name.strip() for name in args.classes.split(",")]
    for file in (args.model, args.weights):
        if not Path(file).is_file():
            raise FileNotFoundError(f"the file {file} does not exist")
    from mmengine.logging import MMLogger

    from mmseg_otseg.apis import OTSegInferencer

    logger = MMLogger.get_instance("segment")
    pictures = args.pictures[0] if len(args.pictures) == 1 else args.pictures
    inferencer = OTSegInferencer(args.model, args.weights, device=args.device)
    result = inferencer(
        pictures,
        classes=names,
        none_below=args.none_below,
        batch_size=args.batch_size,
        out_dir=args.out,
        opacity=args.opacity,
    )
    predictions = result["predictions"]
    number = len(predictions) if isinstance(predictions, list) else 1
    legend = ", ".join(f"{index} {name}" for index, name in enumerate(result["classes"]))
    logger.info(f"{number} pictures segmented into {args.out}; {len(result['skipped'])} skipped")
    logger.info(f"values in the masks: {legend}")


if __name__ == "__main__":
    run(main)
