"""Draw what a model predicts and how the prompts of a class share the picture out.

For every picture: the picture, its labels, the prediction (unseen classes hatched), and for some
classes the score map and each prompt's share of the transport plan: the mass that a patch gives to
the prompt, relative to 1/M. With Sinkhorn the shares of the prompts add up to 1 in every patch.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # also where nothing is installed

from tools.cli import config_parser, load_config, run


def parse_args() -> argparse.Namespace:
    parser = config_parser(__doc__)
    parser.add_argument("checkpoint", nargs="?", help="checkpoint; none for a model as built")
    parser.add_argument("--images", nargs="+", metavar="FILE", help="pictures to draw")
    parser.add_argument(
        "--indices", nargs="+", type=int, help="samples of the data to draw. Default: 0 1 2"
    )
    parser.add_argument("--part", choices=["val", "test"], default="test", help="of which data")
    parser.add_argument(
        "--classes", nargs="+", metavar="NAME", help="classes to draw the plan of, for all pictures"
    )
    parser.add_argument(
        "--most-classes",
        type=int,
        default=2,
        help="without --classes: how many of those that occur, unseen ones first. Default: 2",
    )
    parser.add_argument("--device", help="e.g. cuda:0 or cpu. Default: the GPU if there is one")
    parser.add_argument("--out", default="transport.png", type=Path, help="picture to write")
    return parser.parse_args()


if __name__ == "__main__":
    parse_args()  # answers --help and mistakes before the imports, which take seconds


import numpy as np
import torch
import torch.nn.functional as F
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from mmcv.transforms import LoadAnnotations, LoadImageFromFile
from mmengine.config import Config
from mmengine.dataset import Compose, pseudo_collate
from mmengine.device import get_device
from mmengine.registry import init_default_scope
from mmengine.runner import load_checkpoint
from mmseg.registry import DATASETS, MODELS

from mmseg_otseg.engine import with_split
from mmseg_otseg.imaging import palette_for
from mmseg_otseg.ops import multi_prompt_plan, pixel_prompt_similarity
from mmseg_otseg.structures import IGNORED

CELL = 1.5  # inches


class Drawn(NamedTuple):
    """What is drawn of one picture.

    Attributes:
        name: Its name.
        image: RGB, (h, w, 3), uint8.
        label: Class indices, (h, w), or None if the labels are not known.
        prediction: Class indices, (h, w).
        score: Score maps of all classes, (K, H, W), logits.
        share: Share of each prompt, (K, N, H, W): M times the plan.
    """

    name: str
    image: np.ndarray
    label: np.ndarray | None
    prediction: np.ndarray
    score: np.ndarray
    share: np.ndarray


def samples_of(dataset: Any, indices: list[int]) -> list[dict[str, Any]]:
    """Samples of a data set by index, as its pipeline returns them.

    Raises:
        ValueError: If an index is out of range.
    """
    wrong = [index for index in indices if not 0 <= index < len(dataset)]
    if wrong:
        raise ValueError(f"the data has the samples 0 to {len(dataset) - 1}, not {wrong}")
    return [dataset[index] for index in indices]


def samples_from(cfg: Config, files: list[str]) -> list[dict[str, Any]]:
    """Pictures from files, through the config's test pipeline without what reads labels."""
    steps = list(Compose(cfg.test_pipeline).transforms)[1:]
    steps = [step for step in steps if not isinstance(step, LoadAnnotations)]
    pipeline = Compose([LoadImageFromFile(), *steps])
    return [pipeline({"img_path": file}) for file in files]


@torch.no_grad()
def draw(model: Any, sample: dict[str, Any]) -> Drawn:
    """Predict one sample, and recompute the plan behind its score map on the whole picture."""
    predicted = model.test_step(pseudo_collate([sample]))[0].cpu()
    size = predicted.pred_sem_seg.shape[-2:]
    label = predicted.gt_sem_seg.data[0].numpy() if "gt_sem_seg" in predicted else None
    batch = model.data_preprocessor(pseudo_collate([sample]), training=False)
    features = model.extract_feat(batch["inputs"])
    head = model.decode_head
    pixels = features.pixels[-1]
    similarity = pixel_prompt_similarity(
        pixels.flatten(2).transpose(1, 2), F.normalize(features.queries, dim=-1)
    )
    plan = multi_prompt_plan(similarity, head.transport, head.epsilon)
    share = (plan * plan.shape[-1])[0].unflatten(-1, pixels.shape[-2:])
    image = F.interpolate(sample["inputs"][None].float(), size, mode="nearest")[0]
    return Drawn(
        name=Path(predicted.metainfo.get("img_path", "")).stem,
        image=image.byte().flip(0).permute(1, 2, 0).numpy(),  # BGR to RGB
        label=label,
        prediction=predicted.pred_sem_seg.data[0].numpy(),
        score=head(features)["score"][0].cpu().numpy(),
        share=share.cpu().numpy(),
    )


def classes_of(item: Drawn, unseen: set[int], most: int) -> list[int]:
    """Classes that occur in the labels (else in the prediction), unseen and large ones first."""
    found = item.prediction if item.label is None else item.label
    count = np.bincount(found[found != IGNORED].ravel(), minlength=len(item.score))
    present = [int(index) for index in np.flatnonzero(count)]
    return sorted(present, key=lambda index: (index not in unseen, -count[index]))[:most]


def paint(axes: Axes, classes: np.ndarray, palette: np.ndarray, unseen: set[int]) -> None:
    """Class indices (h, w) in their colours; unseen ones hatched, ignored pixels white."""
    colours = np.full((*classes.shape, 3), 255, np.uint8)
    known = classes != IGNORED
    colours[known] = palette[classes[known]]
    axes.imshow(colours)
    hidden = np.isin(classes, sorted(unseen)) & known
    if hidden.any():
        axes.contourf(hidden, levels=[0.5, 1.5], colors="none", hatches=["////"])
        axes.contour(hidden, levels=[0.5], colors="black", linewidths=0.8)


def sheet(
    items: list[Drawn],
    chosen: list[list[int]],
    prompts: Sequence[str],
    meta: dict[str, Any],
    unseen: set[int],
) -> Figure:
    """All pictures on one sheet, one row for the picture and one for each of its classes.

    Args:
        items: The pictures.
        chosen: For each picture the classes whose plan is drawn.
        prompts: What the prompts are called.
        meta: ``classes`` (names) and ``palette`` (RGB) of the data.
        unseen: Indices of the unseen classes.
    """
    names, palette = meta["classes"], np.array(meta["palette"], np.uint8)
    columns, rows = max(4, len(prompts) + 1), sum(1 + len(classes) for classes in chosen)
    figure = Figure(figsize=(CELL * columns, CELL * 1.25 * rows), layout="constrained")
    grid = figure.subplots(rows, columns, squeeze=False)
    for axes in grid.flat:
        axes.set_axis_off()
    row = 0
    for item, classes in zip(items, chosen):
        top = grid[row]
        top[0].imshow(item.image)
        top[0].set_title(item.name, fontsize=6)
        shown = np.unique(item.prediction)
        place = 1
        if item.label is not None:
            paint(top[1], item.label, palette, unseen)
            top[1].set_title("labels", fontsize=8)
            shown = np.union1d(shown, item.label)
            place = 2
        ignored = item.label == IGNORED if item.label is not None else np.array(False)
        paint(top[place], np.where(ignored, IGNORED, item.prediction), palette, unseen)
        top[place].set_title("prediction", fontsize=8)
        shown = np.setdiff1d(shown, [IGNORED])
        handles = [
            Patch(
                facecolor=palette[index] / 255,
                hatch="////" if index in unseen else None,
                label=f"{names[index]} (unseen)" if index in unseen else names[index],
            )
            for index in shown[:12]
        ]
        legend = top[place + 1].legend(
            handles=handles, fontsize=7, loc="upper left", ncols=2, frameon=False
        )
        legend.set_in_layout(False)  # it reaches over the empty places beside it
        for offset, index in enumerate(classes, start=1):
            line = grid[row + offset]
            title = f"{names[index]}{' (unseen)' if index in unseen else ''}\nscore"
            line[0].imshow(item.score[index], cmap="gray")
            line[0].set_title(title, fontsize=7)
            largest = float(item.share[index].max())
            for number, (share, axes) in enumerate(zip(item.share[index], line[1:])):
                axes.imshow(share, cmap="magma", vmin=0, vmax=largest)
                span = f"{share.min():.2f} to {share.max():.2f}"
                axes.set_title(f"{prompts[number]}\n{span}", fontsize=6)
        row += 1 + len(classes)
    return figure


def main() -> None:
    args = parse_args()
    cfg = load_config(args, *([] if args.images else [args.part]))
    if cfg.model.decode_head.type != "MPSAHead":
        raise ValueError(f"{cfg.model.decode_head.type} has no transport plan; it takes MPSAHead")
    init_default_scope("mmseg")
    model, known = MODELS.build(cfg.model), None
    if args.checkpoint:
        loaded = load_checkpoint(model, args.checkpoint, map_location="cpu")
        known = loaded.get("meta", {}).get("dataset_meta")
    model.to(args.device or get_device()).eval()
    if args.images:
        samples = samples_from(cfg, args.images)
    else:
        config = cfg[f"{args.part}_dataloader"].dataset
        dataset = DATASETS.build(with_split(config, model.neck.text.split))
        samples, known = samples_of(dataset, args.indices or [0, 1, 2]), dataset.metainfo
    split = model.neck.text.split
    unseen = set(split.unseen)
    unknown = sorted(set(args.classes or ()) - set(split.classes))
    if unknown:
        raise ValueError(f"unknown classes {unknown}; there are {', '.join(split.classes)}")
    items = [draw(model, sample) for sample in samples]
    wanted = [split.classes.index(name) for name in args.classes or ()]
    chosen = [wanted or classes_of(item, unseen, args.most_classes) for item in items]
    text = model.neck.text
    prompts = getattr(text, "templates", ())
    if len(prompts) != text.num_prompts:
        prompts = [f"prompt {number}" for number in range(1, text.num_prompts + 1)]
    meta = {"classes": split.classes, "palette": palette_for(split.classes, known)}
    args.out.parent.mkdir(parents=True, exist_ok=True)
    sheet(items, chosen, prompts, meta, unseen).savefig(args.out, dpi=130)
    print(f"written: {args.out}")


if __name__ == "__main__":
    run(main)
