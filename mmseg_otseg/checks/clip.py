"""Describes a CLIP and checks before training whether its patches agree with its text."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from mmengine.config import Config
from mmseg.registry import DATASETS, MODELS
from torch import Tensor

from mmseg_otseg.engine import resolve
from mmseg_otseg.engine.hooks.stages import class_split
from mmseg_otseg.errors import UserError
from mmseg_otseg.models import CLIPBackbone, PrecomputedPrompts, TemplatePrompts
from mmseg_otseg.models.clip import activation_name, clip_config, resolve_clip, shared_clip
from mmseg_otseg.structures import ClassSplit

PERMUTATIONS = 500
MIN_BEATEN = 0.99  # fraction of the permutations that a map must beat
MIN_NAMES = 5  # with fewer names, there are too few permutations


class Agreement(NamedTuple):
    """How well the patches of one layer fit the names, compared with permuted names.

    Attributes:
        layer: The layer, counted from 0.
        score: mIoU in percent.
        chance: Mean score for permuted names.
        beaten: Fraction of the permutations with a lower score, 0..1.
    """

    layer: int
    score: float
    chance: float
    beaten: float


class ClipReport(NamedTuple):
    """Result of the check.

    Attributes:
        parts: What the CLIP and the parts on top of it are, by title.
        levels: The agreement of each of the tower's layers.
        advice: What follows, one line; it begins with "Warning" if something should be changed.
    """

    parts: dict[str, str]
    levels: list[Agreement]
    advice: str


def check_clip(cfg: Config, number: int = 50) -> ClipReport:
    """Compare a config's CLIP with its labeled validation data, without training anything.

    Args:
        cfg: A config with a model that has class names, and ``val_dataloader``.
        number: How many images to read.

    Raises:
        UserError: If the model has no class names, or no pixel has the label of a class.
    """
    clip = dict(cfg.model.get("clip") or cfg.model.backbone.clip)
    with shared_clip():
        model = MODELS.build(cfg.model).eval()
        split = class_split(model)
        if split is None:
            raise UserError("the model of this config has no class names")
        backbone = CLIPBackbone(clip).eval()
        names = ClassSplit(split.classes)
        text = model.neck.text
        if isinstance(text, PrecomputedPrompts):
            text.set_classes(names)
        else:
            text = TemplatePrompts(clip, names, "otseg6", average=True)
        embeddings = F.normalize(text().mean(1), dim=-1)
    dataset = DATASETS.build(resolve(cfg).val_dataloader.dataset)
    samples = (dataset[index] for index in range(min(number, len(dataset))))
    labeled = ((s["inputs"], s["data_samples"].gt_sem_seg.data[0].numpy()) for s in samples)
    levels = patch_agreement(backbone, embeddings, model.data_preprocessor, labeled)
    advice = _advice(levels, len(embeddings), clip.get("pretrained") is not None)
    return ClipReport(_parts(model, clip, backbone), levels, advice)


@torch.no_grad()
def patch_agreement(
    backbone: CLIPBackbone,
    text: Tensor,
    preprocessor: Any,
    samples: Iterable[tuple[Tensor, np.ndarray]],
) -> list[Agreement]:
    """mIoU of each layer's map of cosines on labeled images, compared with permuted names.

    Images are resized to the tower's native size without keeping their aspect ratio.

    Args:
        backbone: The CLIP's image tower.
        text: Unit-length text embeddings, (K, D).
        preprocessor: The data preprocessor; its output goes into the tower.
        samples: Images (3, h, w), BGR, with class indices (h', w'); other values are ignored.

    Raises:
        UserError: If no pixel has the label of a class.
    """
    number = len(text)
    backbone.out_indices = tuple(range(len(backbone.tower.blocks)))
    counts = np.zeros((len(backbone.out_indices), number, number), np.int64)
    for image, labels in samples:
        inputs = preprocessor({"inputs": [image], "data_samples": None})["inputs"]
        size: Any = backbone.visual.image_size
        inputs = F.interpolate(torch.stack([*inputs]), size, mode="bilinear", antialias=True)
        features = backbone(inputs).local
        known = labels < number
        for level, count in zip(features, counts):
            scores = torch.einsum("kd,bdhw->bkhw", text, F.normalize(level, dim=1))
            found = F.interpolate(scores, labels.shape, mode="bilinear")[0].argmax(0).numpy()
            pairs = labels[known].astype(np.int64) * number + found[known]
            count += np.bincount(pairs, minlength=number**2).reshape(number, number)
    if not counts.any():
        raise UserError(
            f"no pixel of the images has a label from 0 to {number - 1}: give images with "
            "labels of these classes"
        )
    own, random, levels = np.arange(number), np.random.default_rng(0), []
    orders = [random.permutation(number) for _ in range(PERMUTATIONS)]
    for layer, count in enumerate(counts):
        score = _mean_iou(count, own)
        chance = np.array([_mean_iou(count, order) for order in orders if (order != own).any()])
        levels.append(Agreement(layer, score, chance.mean(), float((chance < score).mean())))
    return levels


def _mean_iou(counts: np.ndarray, order: np.ndarray) -> float:
    """mIoU in percent of pixel counts (K, K), by class and by prediction, in an order (K,)."""
    counts = counts[:, order]
    hits, rows = counts.diagonal(), counts.sum(1)
    union = np.maximum(rows + counts.sum(0) - hits, 1)
    return float(100 * (hits / union)[rows > 0].mean())


def _parts(model: Any, clip: dict[str, Any], backbone: CLIPBackbone) -> dict[str, str]:
    """What a CLIP is, and what trains on top of it, by title."""
    source, config = resolve_clip(**clip), clip_config(clip["model"])
    text, tower = config["text_cfg"], backbone.tower
    native: Any = backbone.visual.image_size
    height, width = native if isinstance(native, (tuple, list)) else (native, native)
    rows, columns = backbone.patch_size
    trunk = getattr(backbone.visual, "trunk", None)
    kind = "open_clip's ViT" if trunk is None else f"timm's {type(trunk).__name__}"
    pool = "class token" if tower.num_prefix else "mean of the patches"
    if getattr(trunk, "attn_pool", None) is not None:
        pool = "attention pool"
    causal = "not causal" if text.get("no_causal_mask") else "causal"
    pixels = {key: [round(part, 3) for part in getattr(source, key)] for key in ("mean", "std")}
    frozen = sum(parameter.numel() for parameter in backbone.visual.parameters())
    lines = {
        "CLIP": str(source.name),
        "weights": str(source.file or clip.get("pretrained") or "random"),
        "image tower": f"{kind}, {len(tower.blocks)} layers, width {tower.width}, "
        f"{frozen:,} parameters",
        "tokens": f"{tower.num_prefix} + {height // rows} x {width // columns} at the native size "
        f"{height} x {width}, patch {rows} x {columns}; global token: {pool}",
        "text tower": f"{text.get('layers', 12)} layers, width {text.get('width', 512)}, "
        f"{text.get('context_length', 77)} tokens, {causal}, tokenizer "
        f"{text.get('hf_tokenizer_name', 'CLIP')}",
        "joint width": str(config["embed_dim"]),
        "activation": f"{activation_name(source.quick_gelu)} ({source.stated_by['quick_gelu']})",
    }
    for key, value in pixels.items():
        lines[f"CLIP's {key}"] = f"{value} ({source.stated_by[key]})"
        own = getattr(model.data_preprocessor, key, None)
        if own is not None:
            used = [round(part, 3) for part in own.flatten().tolist()]
            lines[f"{key} in use"] = "the same" if used == value else str(used)
    for part in ("backbone", "neck", "decode_head"):
        if (module := getattr(model, part, None)) is not None:
            number = sum(p.numel() for p in module.parameters() if p.requires_grad)
            lines[f"{part} trains"] = f"{number:,} parameters"
    return lines


def _advice(levels: Sequence[Agreement], names: int, trained: bool) -> str:
    """The conclusion from the measured agreement with ``names`` names, and what to do."""
    last, best = levels[-1], max(levels, key=lambda level: (level.beaten, level.score))
    if not trained:
        return "The weights are random, so patches and text cannot agree: set clip.pretrained."
    if names < MIN_NAMES:
        return f"{names} names are too few to tell agreement from chance: give {MIN_NAMES}."
    if last.beaten >= MIN_BEATEN:
        return "Patches and text agree better than chance at the last layer."
    adapters = (
        "adapters learn the alignment (project=False, several out_indices, as configs/zegot does)"
    )
    if best.beaten == 1:  # of many layers, some beat most orders by chance
        return (
            "Warning: patches and text do not agree better than chance at the last layer, but at "
            f"layer {best.layer} they do: set model.backbone.out_indices=[{best.layer}]; or "
            f"{adapters}."
        )
    return (
        "Warning: patches and text agree no better than chance at any layer. Check the weights, "
        f"the activation and mean and std above; if they are right, {adapters}."
    )
