#!/usr/bin/env python
"""Find how strongly the shifted worlds of the shapes benchmark are shifted.

The rule, stated before anything was measured and blind to every trained model: the severity of a
world is the smallest multiple of 0.05 at which the training-free dense mIoU of the shipped CLIP,
over all 20 classes, is at most 40 % of its value in the clean world. Both are measured on the val
split of seed 0, 1,000 pictures, with OTSeg's six prompts averaged (see ``evaluate_clip.py``).

The severities found stand in ``mmseg_otseg/datasets/shapes/worlds.py``.
"""

from __future__ import annotations

import argparse
import json

from evaluate_clip import evaluate, load  # type: ignore[import-not-found]
from mmengine.config import Config

from mmseg_otseg.datasets.shapes import get_world

SHARE, STEP, HIGHEST = 0.40, 0.05, 0.95


def main() -> None:
    """Print the clean value, one JSON line per severity tried, and each world's severity."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("config", help="configs/shapes/clip/shapes_clip.py")
    parser.add_argument("--pretrained", help="weights in place of the config's")
    parser.add_argument("--worlds", nargs="+", default=["haze", "lowlight"])
    parser.add_argument("--count", type=int, default=1000, help="pictures per measurement")
    args = parser.parse_args()
    config = Config.fromfile(args.config)
    model = load(config, args.pretrained)

    def measure(world: str, severity: float) -> dict[str, float]:
        result = evaluate(model, config.preprocess, get_world(world, severity), count=args.count)
        line = {key: round(value, 2) for key, value in result.items()}
        print(json.dumps(dict(world=world, severity=severity, **line)), flush=True)
        return result

    limit = SHARE * measure("clean", 0.0)["mIoU"]
    for world in args.worlds:
        for number in range(round(HIGHEST / STEP) + 1):
            severity = round(number * STEP, 2)
            if measure(world, severity)["mIoU"] <= limit:
                print(f"{world}: severity {severity} (mIoU at most {limit:.2f})", flush=True)
                break
        else:
            raise SystemExit(f"{world}: mIoU stays above {limit:.2f} up to severity {HIGHEST}")


if __name__ == "__main__":
    main()
