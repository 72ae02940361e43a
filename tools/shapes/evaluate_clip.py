#!/usr/bin/env python
"""Measure a CLIP on shapes scenes without training anything: accuracy and dense mIoU.

Accuracy: images with one object, global token against the 20 class names.
Dense: every patch token after CLIP's own ``ln_post`` and projection against the class names, the
cosines upsampled bilinearly to the image, argmax over the 20 classes; mIoU over the seen, the
unseen, and the harmonic mean of both. Background pixels are ignored.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence

from mmseg_otseg_cli import run
from mmseg_otseg_cli.options import add_cfg_options, new_parser


def parse_args() -> argparse.Namespace:
    parser = new_parser(__doc__)
    parser.add_argument("config", help="a config with `clip` and `preprocess`")
    parser.add_argument("--subset", default="val")
    parser.add_argument("--count", type=int, default=1000, help="images of each kind")
    add_cfg_options(parser)
    return parser.parse_args()


if __name__ == "__main__":
    parse_args()  # answers --help and mistakes before the imports, which take seconds

import numpy as np
import open_clip
import torch
import torch.nn.functional as F
from mmengine.config import Config
from torch import Tensor

from mmseg_otseg.datasets.shapes import (
    BACKGROUND,
    SHAPES_CLASSES,
    SHAPES_UNSEEN_INDICES,
    Composition,
    render_scene,
)
from mmseg_otseg.evaluation import ZeroShotIoUMetric
from mmseg_otseg.models.clip import load_clip
from mmseg_otseg.models.text import OTSEG_6
from mmseg_otseg.structures import ClassSplit

TEMPLATES = OTSEG_6
SINGLE = Composition(objects=(1, 1), radius=(0.15, 0.25))


def tokenize(texts: Sequence[str], context_length: int) -> Tensor:
    """open_clip's own tokens of some texts, (number of texts, context_length) int64."""
    return open_clip.get_tokenizer("ViT-B-32")(list(texts), context_length=context_length)


@torch.no_grad()
def class_embeddings(model: open_clip.CLIP) -> Tensor:
    """Unit-length mean text embedding of every class over the templates, (20, D)."""
    rows = [
        model.encode_text(tokenize([t.format(n) for t in TEMPLATES], model.context_length), True)
        for n in SHAPES_CLASSES
    ]
    return F.normalize(torch.stack(rows).mean(1), dim=-1)


def to_tensor(images: Sequence[np.ndarray], preprocess: dict) -> Tensor:
    """RGB uint8 images (H, W, 3) to one normalized float32 batch (B, 3, H, W)."""
    batch = torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2).float()
    mean, std = (torch.tensor(preprocess[k]).view(1, 3, 1, 1) for k in ("mean", "std"))
    return (batch - mean) / std


def encode(model: open_clip.CLIP, images: Tensor) -> tuple[Tensor, Tensor]:
    """Global token (B, D) and patch tokens (B, M, D) of images (B, 3, H, W), unit length."""
    visual, had = model.visual, model.visual.output_tokens
    visual.output_tokens = True
    try:
        pooled, tokens = visual(images)
    finally:
        visual.output_tokens = had
    return F.normalize(pooled, dim=-1), F.normalize(tokens @ visual.proj, dim=-1)


@torch.no_grad()
def evaluate(
    model: open_clip.CLIP,
    preprocess: dict,
    subset: str = "val",
    count: int = 500,
) -> dict[str, float]:
    """Training-free accuracy and dense mIoU, all in percent.

    Args:
        model: The CLIP, in float32 on the CPU.
        preprocess: ``mean`` and ``std`` of the pixels, RGB in 0..255.
        subset: Subset of the scenes.
        count: Number of images of each kind.

    Returns:
        ``accuracy``, and the metrics of ``ZeroShotIoUMetric``.
    """
    model.eval()
    text = class_embeddings(model)
    areas, correct = torch.zeros(3, len(SHAPES_CLASSES), dtype=torch.int64), 0
    metric = ZeroShotIoUMetric()
    metric.dataset_meta = ClassSplit(SHAPES_CLASSES, SHAPES_UNSEEN_INDICES).metainfo
    for start in range(0, count, 100):
        numbers = range(start, min(start + 100, count))
        ones = [render_scene(subset, i, composition=SINGLE) for i in numbers]
        tokens = encode(model, to_tensor([scene.image for scene in ones], preprocess))[0]
        guesses = (tokens @ text.T).argmax(1).tolist()
        correct += sum(guess == scene.objects[0].label for guess, scene in zip(guesses, ones))

        scenes = [render_scene(subset, i) for i in numbers]
        images = to_tensor([scene.image for scene in scenes], preprocess)
        cosines = (encode(model, images)[1] @ text.T).transpose(1, 2)
        maps = cosines.unflatten(2, (round(cosines.shape[2] ** 0.5), -1))
        labels = F.interpolate(maps, images.shape[2:], mode="bilinear").argmax(1)
        truth = torch.from_numpy(np.stack([scene.labels for scene in scenes])).long()
        labels, truth = labels[truth != BACKGROUND], truth[truth != BACKGROUND]
        counted = (truth[truth == labels], labels, truth)
        areas += torch.stack([each.bincount(minlength=areas.shape[1]) for each in counted])
    return dict(accuracy=100 * correct / count, **metric.metrics_of(areas)[0])


def main() -> None:
    """Print the results as one JSON line."""
    args = parse_args()
    config = Config.fromfile(args.config)
    config.merge_from_dict(args.cfg_options or {})
    model = load_clip(config.clip.model.to_dict(), config.clip.pretrained).eval()
    result = evaluate(model, config.preprocess, args.subset, args.count)
    print(json.dumps({key: round(value, 2) for key, value in result.items()}))


if __name__ == "__main__":
    run(main)
