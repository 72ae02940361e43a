#!/usr/bin/env python
"""Find the severities of haze and low light, by a rule that looks at CLIP alone.

The two harder cameras are shifted as far as CLIP still knows what it sees: the severity is the
largest multiple of 0.05 up to which CLIP names 90 % of single objects. The rule was written when a
first result in the crowd was known; no figure reported from another world depends on it.

All is measured on the val subset of seed 0, 1,000 images, with OTSeg's six prompts averaged (see
``evaluate_clip.py``). The severities found stand in ``mmseg_otseg/datasets/shapes/worlds.py``.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # for the imports from `tools`
from mmseg_otseg_cli import run
from mmseg_otseg_cli.options import new_parser


def parse_args() -> argparse.Namespace:
    parser = new_parser(__doc__)
    parser.add_argument("config", help="configs/shapes/clip/shapes_clip.py")
    parser.add_argument("--pretrained", help="weights in place of the config's")
    parser.add_argument("--count", type=int, default=1000, help="images per measurement")
    return parser.parse_args()


if __name__ == "__main__":
    parse_args()  # answers --help and mistakes before the imports, which take seconds

from mmengine.config import Config

from mmseg_otseg.datasets.shapes import get_world
from tools.shapes.evaluate_clip import evaluate, load

ACCURACY, STEP, HIGHEST = 90.0, 0.05, 0.95
SEVERITIES = [round(number * STEP, 2) for number in range(round(HIGHEST / STEP) + 1)]

Measure = Callable[[str, float], dict[str, float]]


def camera_severity(measure: Measure, world: str) -> float:
    """Severity of one of the harder cameras, by the rule; 0 if CLIP is too weak for any."""
    found = 0.0
    for severity in SEVERITIES:
        if measure(world, severity)["accuracy"] < ACCURACY:
            break
        found = severity
    return found


def main() -> None:
    """Print one JSON line per measurement, and the severities found."""
    args = parse_args()
    config = Config.fromfile(args.config)
    model = load(config, args.pretrained)

    def measure(world: str, severity: float) -> dict[str, float]:
        result = evaluate(model, config.preprocess, get_world(world, severity), count=args.count)
        line = {key: round(value, 2) for key, value in result.items()}
        print(json.dumps(dict(world=world, severity=severity, **line)), flush=True)
        return result

    for world in ("haze", "lowlight"):
        print(f"{world}: severity {camera_severity(measure, world)}", flush=True)


if __name__ == "__main__":
    run(main)
