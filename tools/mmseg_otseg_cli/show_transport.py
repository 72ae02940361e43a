"""Draw what a model predicts and how the prompts of a class divide up the image.

Two sheets are written. The first has a row for each image: the image, its labels, CLIP's own
map and the prediction, unseen classes hatched and named, with the IoU of each below. The second has
a row for a class of each image: which prompt takes the most of every place, and each prompt's share
of the transport plan, the mass that a patch gives to the prompt relative to 1/M.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .config import load_config
from .options import config_parser

if TYPE_CHECKING:
    from mmengine.config import Config

    from mmseg_otseg.demo.samples import Sample
    from mmseg_otseg.inference import Inspection
    from mmseg_otseg.inference.sheets import Row

DPI = 110
IMAGES = 4


def parse_args() -> argparse.Namespace:
    parser = config_parser(__doc__)
    parser.add_argument("checkpoint", nargs="?", help="checkpoint. Default: initial weights")
    parser.add_argument(
        "--images", nargs="+", metavar="FILE", help="images to draw. Default: four of the test data"
    )
    parser.add_argument(
        "--none-below",
        type=float,
        metavar="P",
        help="pixels of the model's prediction whose best value is below P stay gray",
    )
    parser.add_argument(
        "--refine", action="store_true", help="one more column, with edges at those of the image"
    )
    parser.add_argument(
        "--out",
        default="sheet.png",
        type=Path,
        help="first sheet; the second is NAME_plans.png. Default: sheet.png",
    )
    return parser.parse_args()


def class_of(sample: Sample, look: Inspection) -> list[int]:
    """The largest unseen class, or else seen one, in the labels (else in the prediction)."""
    import numpy as np

    found = look.labels() if sample.label is None else sample.label
    count = np.bincount(found[found < len(look.names)], minlength=len(look.names))
    present = [int(index) for index in np.flatnonzero(count)]
    return sorted(present, key=lambda index: (bool(look.seen[index]), -count[index]))[:1]


def row_of(sample: Sample, looks: dict[str, Inspection], none_below: float | None) -> Row:
    """A row of the first sheet, at the size of the labels; the first map is CLIP's own."""
    from mmseg_otseg.inference.sheets import Row

    image = sample.image[..., ::-1]  # BGR to RGB
    size = image.shape[:2] if sample.label is None else sample.label.shape
    maps: dict[str, Any] = {}
    for title, look in looks.items():
        maps[title] = look.labels(none_below=none_below if maps else None, size=size)
    return Row(image, sample.label, maps)


def untrained(cfg: Config) -> Config:
    """CLIP's own map, with the CLIP, the classes and the test pipeline of a resolved config."""
    from mmengine.config import Config

    from mmseg_otseg.inference.loading import installed_config

    free = Config.fromfile(installed_config("shapes/training_free.py"))
    free.model.update(clip=cfg.model.backbone.clip, split=cfg.model.neck.text.split)
    free.model.update(data_preprocessor=cfg.model.data_preprocessor, test_cfg=cfg.model.test_cfg)
    free.model.decode_head.seen_bias = 0.0
    free.test_dataloader, free.val_dataloader = cfg.test_dataloader, cfg.val_dataloader
    free.pop("test_pipeline")  # that of the shapes
    return free


def main() -> None:
    args = parse_args()
    cfg = load_config(args, *([] if args.images else ["test"]))
    from mmengine.logging import print_log

    from mmseg_otseg.demo.samples import Sample, build_dataset, samples_with_unseen
    from mmseg_otseg.imaging import read_image
    from mmseg_otseg.inference import OTSegInferencer
    from mmseg_otseg.inference.sheets import plan_sheet, segmentation_sheet

    ours = OTSegInferencer(cfg, args.checkpoint)
    clip = OTSegInferencer(untrained(ours.cfg), None)
    split = ours.model.neck.text.split
    if args.images:
        samples = [Sample(read_image(file)[0][..., ::-1], None) for file in args.images]
    else:
        dataset = build_dataset(cfg)
        ours.model.dataset_meta = dataset.metainfo  # its colors
        samples = samples_with_unseen(dataset, split, IMAGES)
    looks = [ours.inspect(sample.image) for sample in samples]
    rows = []
    for sample, look in zip(samples, looks):
        columns = {"CLIP's own map": clip.inspect(sample.image), "prediction": look}
        if args.refine:
            columns["refined"] = ours.inspect(sample.image, refine=True)
        rows.append(row_of(sample, columns, args.none_below))
    args.out.parent.mkdir(parents=True, exist_ok=True)
    sheet = segmentation_sheet(rows, split.classes, looks[0].palette, split.unseen)
    sheet.savefig(args.out, dpi=DPI)
    print(f"written: {args.out}")
    if looks[0].share is None:
        print_log(f"{type(ours.model.decode_head).__name__} has no transport plan to draw")
        return
    chosen = [class_of(sample, look) for sample, look in zip(samples, looks)]
    plans = args.out.with_name(f"{args.out.stem}_plans{args.out.suffix}")
    plan_sheet(looks, chosen, [sample.label for sample in samples]).savefig(plans, dpi=DPI)
    print(f"written: {plans}")
