"""Say what is wrong with the data of a config before anything is trained on it.

Reads every label file, runs the training pipeline once over every sample, lets CLIP read the class
names, and draws some samples to ``data_check.png`` in the work folder. Ends with exit code 1 if
training would make no sense.
"""

from __future__ import annotations

import argparse
import os
import sys
import textwrap
from pathlib import Path
from typing import TYPE_CHECKING

from .config import load_config
from .options import config_parser

if TYPE_CHECKING:
    from mmseg_otseg.checks import DataReport

WIDTH = 100


def parse_args() -> argparse.Namespace:
    parser = config_parser(__doc__)
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1, help="processes")
    parser.add_argument("--no-clip", action="store_true", help="do not build CLIP")
    return parser.parse_args()


def tables(report: DataReport) -> str:
    """What the pixels of each subset are, and the classes.

    Of each class: the share of the pixels, in how many images it is, and the nearest name.
    """
    from prettytable import PrettyTable

    from mmseg_otseg.checks.samples import pixels_per_class

    assert report.split is not None
    split, comparison = report.split, report.comparison
    data = PrettyTable(["", "images", "label sizes", "seen", "unseen", "ignored"])
    classes = PrettyTable(["", "class", "S/U"])
    classes.align["class"] = "l"
    for index, name in enumerate(split.classes):
        classes.add_row([index, name, "U" if index in split.unseen else "S"])
    for subset, samples in report.samples.items():
        pixels = pixels_per_class(samples)
        shares = [sum(pixels[index] for index in group) for group in (split.seen, split.unseen)]
        shares.append(sum(sample.ignored for sample in samples))
        total = max(pixels.total() + shares[-1], 1)
        sizes = sorted({sample.size for sample in samples if sample.size})
        shown = [f"{width} x {height}" for height, width in sizes]
        span = " to ".join(dict.fromkeys(shown[:: max(len(shown) - 1, 1)]))
        percent = [f"{100 * share / total:.1f} %" for share in shares]
        data.add_row([subset, len(samples), span, *percent])
        known, indices = max(pixels.total(), 1), range(split.num_classes)
        share = [f"{100 * pixels[index] / known:.2f} %" for index in indices]
        held = [sum(bool(sample.pixels[index]) for sample in samples) for index in indices]
        classes.add_column(f"{subset} pixels", share)
        classes.add_column("images" if subset == "train" else "images ", held)
    if comparison is not None:
        nearest = zip(comparison.nearest, comparison.cosine)
        names = [f"{split.classes[index]} ({cosine:.2f})" for index, cosine in nearest]
        classes.add_column("nearest name to CLIP", names)
    return f"{data}\n{classes}"


def main() -> None:
    args = parse_args()
    cfg = load_config(args)
    from mmseg_otseg.checks import check_data

    sheet = Path(cfg.work_dir) / "data_check.png"
    report = check_data(cfg, args.workers, not args.no_clip)
    print()
    if report.samples:
        print(tables(report))
    for level in ("error", "warning", "note"):
        for finding in report.findings:
            if finding.level == level:
                text = f"{level}: {finding.text}"
                print(textwrap.fill(text, WIDTH, subsequent_indent="    ", break_long_words=False))
    number = sum(finding.level == "error" for finding in report.findings)
    print("training makes sense" if not number else f"errors to fix before training: {number}")
    if report.draw_samples(sheet):
        print(f"samples as the model sees them: {sheet}")
    if not report.can_train:
        sys.exit(1)
