"""Describes a CLIP and checks before training whether its patches agree with its text."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from mmengine.config import Config
from mmseg.registry import DATASETS
from torch import Tensor

from mmseg_otseg.engine import resolve
from mmseg_otseg.errors import UserError
from mmseg_otseg.imaging import names_of, read_image
from mmseg_otseg.models import CLIPBackbone, TemplatePrompts
from mmseg_otseg.models.clip import activation_name, clip_config, resolve_clip
from mmseg_otseg.structures.class_split import ClassSplit

PERMUTATIONS = 500
MIN_BEATEN = 0.99  # fraction of the permutations that a map must beat
MIN_NAMES = 5  # with fewer names, there are too few permutations


class Agreement(NamedTuple):
    """How well the patches of one layer fit the names, compared with permuted names.

    Attributes:
        layer: The layer, counted from 0.
        score: mIoU in percent, or correlation with the global score.
        chance: Mean score for permuted names.
        beaten: Fraction of the permutations with a lower score, 0..1.
    """

    layer: int
    score: float
    chance: float
    beaten: float

    @property
    def aligned(self) -> bool:
        """Whether the patches agree with the text better than chance."""
        return self.beaten >= MIN_BEATEN


def describe_clip(model: Any, clip: dict[str, Any], backbone: CLIPBackbone) -> dict[str, str]:
    """Describe a CLIP and the parts that train on top of it, as rows of a table.

    Args:
        model: The segmentor.
        clip: The ``clip`` setting.
        backbone: The CLIP's image tower.

    Returns:
        The text of each row by its title, in the order of the table.
    """
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


class PatchCheck:
    """Compares a CLIP's patches with its text, at every layer, without training anything.

    Images are resized to the tower's native size without keeping their aspect ratio.

    Args:
        clip: The ``clip`` setting.
        classes: Class names.
        preprocessor: The data preprocessor; its output goes into the tower.
        templates: Prompt templates for the names.
    """

    def __init__(
        self,
        clip: dict[str, Any],
        classes: Sequence[str],
        preprocessor: Any,
        templates: str | Sequence[str] = "otseg6",
    ) -> None:
        self.backbone = CLIPBackbone(clip).eval()
        self.backbone.out_indices = tuple(range(len(self.backbone.tower.blocks)))
        self.preprocessor = preprocessor
        split = ClassSplit(tuple(names_of(name)[0] for name in classes))
        self.text = TemplatePrompts(clip, split, templates, average=True)()[:, 0]  # (K, D)

    @torch.no_grad()
    def scores(self, image: Tensor) -> tuple[list[Tensor], Tensor]:
        """Cosine similarities of one image (3, h, w), BGR, with the names.

        Returns:
            The similarities of each layer's patches, (K, H, W), and of the global token, (K,).
        """
        inputs = self.preprocessor({"inputs": [image], "data_samples": None})["inputs"]
        inputs = inputs if isinstance(inputs, Tensor) else torch.stack(inputs)
        size = self.backbone.visual.image_size
        features = self.backbone(F.interpolate(inputs, size, mode="bilinear", antialias=True))
        maps = [
            torch.einsum("kd,dhw->khw", self.text, F.normalize(level[0], dim=0))
            for level in features.local
        ]
        return maps, self.text @ features.global_token[0]

    def on_labels(self, samples: Iterable[tuple[Tensor, np.ndarray]]) -> list[Agreement]:
        """mIoU of each layer's map on labeled images, compared with permuted names.

        Args:
            samples: Images (3, h, w), BGR, with class indices (h', w'); other values are ignored.

        Returns:
            The agreement of each layer, with mIoU in percent as its score.

        Raises:
            UserError: If no pixel has the label of a class.
        """
        number = len(self.text)
        counts = np.zeros((len(self.backbone.out_indices), number, number), np.int64)
        for image, labels in samples:
            known = labels < number
            for level, scores in enumerate(self.scores(image)[0]):
                resized = F.interpolate(scores[None], labels.shape, mode="bilinear")
                found = resized[0].argmax(0).numpy()
                pairs = labels[known].astype(np.int64) * number + found[known]
                counts[level] += np.bincount(pairs, minlength=number**2).reshape(number, number)
        if not counts.any():
            raise UserError(
                f"no pixel of the images has a label from 0 to {number - 1}: give images with "
                "labels of these classes"
            )
        return self._compare([partial(_mean_iou, level) for level in counts])

    def on_images(self, images: Iterable[Tensor]) -> list[Agreement]:
        """Correlation of each layer's mean score with the global score, over images and names.

        Args:
            images: Images (3, h, w), BGR, at least two.

        Returns:
            The agreement of each layer, with the correlation as its score.

        Raises:
            UserError: If there are fewer than two.
        """
        pooled, whole = [], []
        for image in images:
            maps, scores = self.scores(image)
            pooled.append(torch.stack([level.mean((1, 2)) for level in maps]))
            whole.append(scores)
        if len(whole) < 2:
            raise UserError("images without labels are compared with each other: give 2 or more")
        target = _centered(torch.stack(whole))
        levels = [_centered(level) for level in torch.stack(pooled, dim=1)]
        return self._compare([partial(_correlation, target, level) for level in levels])

    def _compare(self, measures: Sequence[Callable[[np.ndarray], float]]) -> list[Agreement]:
        number, random = len(self.text), np.random.default_rng(0)
        own, found = np.arange(number), []
        orders = [random.permutation(number) for _ in range(PERMUTATIONS)]
        others = [order for order in orders if (order != own).any()]
        for layer, measure in zip(self.backbone.out_indices, measures, strict=True):
            score, chance = measure(own), np.array([measure(order) for order in others])
            found.append(Agreement(layer, score, chance.mean(), float((chance < score).mean())))
        return found


def _mean_iou(counts: np.ndarray, order: np.ndarray) -> float:
    """mIoU in percent of pixel counts (K, K), by class and by prediction, in an order (K,)."""
    counts = counts[:, order]
    hits, rows = counts.diagonal(), counts.sum(1)
    union = np.maximum(rows + counts.sum(0) - hits, 1)
    return float(100 * (hits / union)[rows > 0].mean())


def _centered(scores: Tensor) -> Tensor:
    """Scores (n, K) minus their means over images and over names."""
    scores = scores - scores.mean(0)
    return scores - scores.mean(1, keepdim=True)


def _correlation(first: Tensor, second: Tensor, order: np.ndarray) -> float:
    """Correlation of centered scores (n, K), with the names of the second permuted."""
    return float(F.cosine_similarity(first.flatten(), second[:, order].flatten(), dim=0))


def labeled_samples(cfg: Config, split: ClassSplit, number: int) -> Iterable[tuple[Any, Any]]:
    """The first images (3, h, w), BGR, and labels (h', w') of a config's validation data."""
    dataset = DATASETS.build(resolve(cfg).val_dataloader.dataset)
    for index in range(min(number, len(dataset))):
        sample = dataset[index]
        yield sample["inputs"], sample["data_samples"].gt_sem_seg.data[0].numpy()


def read_images(paths: Sequence[Any]) -> Iterable[Tensor]:
    """Read image files as tensors (3, h, w), BGR."""
    for path in paths:
        yield torch.from_numpy(read_image(path)[0][..., ::-1].copy()).permute(2, 0, 1)


def verdict(levels: Sequence[Agreement], names: int, trained: bool) -> str:
    """The conclusion from the measured agreement, and what to do.

    Args:
        levels: The agreement of each layer, at least one; the last is the tower's last layer.
        names: Number of names the layers were compared with.
        trained: Whether CLIP's weights are pretrained.

    Returns:
        One line of text, which begins with "Warning" if something should be changed.
    """
    last, best = levels[-1], max(levels, key=lambda level: (level.beaten, level.score))
    if not trained:
        return "The weights are random, so patches and text cannot agree: set clip.pretrained."
    if names < MIN_NAMES:
        return f"{names} names are too few to tell agreement from chance: give {MIN_NAMES}."
    if last.aligned:
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
