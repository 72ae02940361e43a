"""Segment images with an exported model: ``python -m mmseg_otseg.inference FOLDER IMG ...``."""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Sequence

from mmseg_otseg.imaging import find_images
from mmseg_otseg.inference.runtime import OTSegRuntime


def parser() -> argparse.ArgumentParser:
    options = argparse.ArgumentParser(prog="python -m mmseg_otseg.inference", description=__doc__)
    options.add_argument("folder", help="what tools/export.py wrote")
    options.add_argument("images", nargs="+", metavar="IMG", help="images, or folders of them")
    options.add_argument(
        "--classes",
        help='names, such as "cat, sofa", or a .txt file with one name per line. '
        "Default: the exported ones",
    )
    options.add_argument(
        "--out", required=True, metavar="DIR", help="masks go to DIR/pred, overlays to DIR/vis"
    )
    options.add_argument(
        "--none-below",
        type=float,
        metavar="P",
        help='pixels whose best value is below P become "none of these"',
    )
    options.add_argument("--no-overlays", action="store_true", help="write the masks only")
    options.add_argument("--opacity", type=float, default=0.6, help="of the classes in overlays")
    options.add_argument("--seen-bias", type=float, help="taken off seen classes' probabilities")
    options.add_argument(
        "--refine", action="store_true", help="move edges to edges of the image (needs torch)"
    )
    options.add_argument("--threads", type=int, help="Default: all cores")
    options.add_argument(
        "--providers",
        nargs="+",
        metavar="NAME",
        help="execution providers of onnxruntime, such as CPUExecutionProvider. Default: those "
        "that the installed package offers",
    )
    return options


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line."""
    args = parser().parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    say = logging.getLogger("mmseg_otseg").info
    try:
        total = len(find_images(args.images)[0])
        runtime = OTSegRuntime(args.folder, args.threads, args.seen_bias, args.providers)
        results = runtime.segment(
            args.images,
            classes=args.classes,
            none_below=args.none_below,
            out_dir=args.out,
            opacity=args.opacity,
            overlays=not args.no_overlays,
            refine=args.refine,
        )
        for number, result in enumerate(results, 1):
            classes = result.classes
            say(f"{number}/{total} {result.name}")
    except KeyboardInterrupt:
        sys.exit("interrupted; the masks written so far are complete")
    except (OSError, ValueError, ImportError) as error:
        sys.exit(f"error: {error}")
    say(f"masks are in {args.out}; their values: ")
    say(", ".join(f"{index} {name}" for index, name in enumerate(classes)))


if __name__ == "__main__":
    main()
