"""How class names read to CLIP, and whether CLIP finds them where the labels say."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from mmcv import imresize
from torch import Tensor

from mmseg_otseg.models.clip import load_clip
from mmseg_otseg.models.text.templates import resolve_templates
from mmseg_otseg.models.text.text_tower import TextTower, build_text_tower, encode_texts

from .finding import Finding, error, warning

# Of the distance to the nearest name, against what is usual in the list.
NEAR, NEAR_COSINE = 0.3, 0.9
CLEARLY = 3.0  # standard deviations, by how much another order of names must fit better


class Reading(NamedTuple):
    """How the names read.

    Attributes:
        nearest: For each class the index of the class whose text is nearest, (K,).
        cosine: Their cosine similarity, (K,).
        embeddings: Unit-length text embeddings, the mean over the templates, (K, D).
        findings: What is wrong with them.
    """

    nearest: list[int]
    cosine: list[float]
    embeddings: Tensor
    findings: list[Finding]


class NameReader:
    """One CLIP, to read names with and to look at images with.

    Args:
        clip: ``dict(model=..., pretrained=...)``, see :func:`~mmseg_otseg.models.clip.load_clip`.
        templates: Sentences for the names.
        mean: Of the images, RGB, 0..255.
        std: Likewise.
    """

    def __init__(
        self,
        clip: Mapping[str, Any],
        templates: str | Sequence[str] = "otseg6",
        mean: Sequence[float] = (123.675, 116.28, 103.53),
        std: Sequence[float] = (58.395, 57.12, 57.375),
    ) -> None:
        self.clip = load_clip(**clip)
        self.trained = clip.get("pretrained") is not None  # else it knows no language
        self.tower: TextTower = build_text_tower(self.clip, clip["model"])
        self.templates = resolve_templates(templates)
        self.mean, self.std = torch.tensor(mean), torch.tensor(std)

    def read(self, names: Sequence[str]) -> Reading:
        """Read class names: the nearest other name of each, and those that read alike.

        Raises:
            ValueError: If a name is too long for the text tower.
        """
        texts = [template.format(name) for name in names for template in self.templates]
        each = encode_texts(self.tower, texts).unflatten(0, (len(names), len(self.templates)))
        embeddings = F.normalize(each.mean(1), dim=-1)
        findings: list[Finding] = []
        if len(names) == 1:
            return Reading([0], [1.0], embeddings, findings)
        cosine, nearest = (embeddings @ embeddings.T).fill_diagonal_(-1).max(1)
        near, usual = 1 - cosine, (1 - cosine).median()
        close = (near <= NEAR * usual) & (cosine > NEAR_COSINE) & self.trained
        pairs = {tuple(sorted((i, int(nearest[i])))) for i in torch.nonzero(close)[:, 0].tolist()}
        for first, second in sorted(pairs):
            findings.append(
                warning(
                    f"{names[first]!r} and {names[second]!r} read nearly the same to CLIP (cosine "
                    f"{cosine[first]:.3f}; {1 - usual:.3f} is usual in this list). Choose words "
                    "that differ in what can be seen."
                )
            )
        return Reading(nearest.tolist(), cosine.tolist(), embeddings, findings)

    @torch.no_grad()
    def names_of_regions(
        self, crops: Mapping[int, Sequence[np.ndarray]], names: Sequence[str], embeddings: Tensor
    ) -> list[Finding]:
        """Whether the names fit the regions that carry their labels better than other orders do.

        Args:
            crops: For each class index some images of its regions, (h, w, 3), RGB, uint8.
            names: The class names.
            embeddings: Their unit-length texts, (K, D).
        """
        shown = sorted(index for index, found in crops.items() if found)
        if len(shown) < 3:
            return []
        rows = []
        for index in shown:
            images = torch.stack([self._as_input(crop) for crop in crops[index]])
            rows.append(F.normalize(self.clip.encode_image(images), dim=-1).mean(0) @ embeddings.T)
        fit = torch.stack(rows)
        fit = fit - fit.mean(0)  # some names are near to every image
        return _better_orders(fit, shown, names)

    def _as_input(self, crop: np.ndarray) -> Tensor:
        """A crop as CLIP takes it, (3, size, size)."""
        size = self.clip.visual.image_size
        height, width = size if isinstance(size, tuple) else (size, size)
        pixels = torch.from_numpy(imresize(crop, (width, height))).float()
        return ((pixels - self.mean) / self.std).permute(2, 0, 1)


def _better_orders(fit: Tensor, shown: list[int], names: Sequence[str]) -> list[Finding]:
    """Shifts of the list of names, and exchanges of two, that fit clearly better.

    Where CLIP knows nothing of the images, the similarities are noise; the mean of S of them for
    one order differs from that for another with a standard deviation of sqrt(2 / S) times theirs.

    Args:
        fit: Similarity of the regions of each shown class to every name, (S, K).
        shown: The class indices of the rows.
        names: The class names.
    """
    number, rows = fit.shape[1], torch.arange(len(shown))
    at = torch.tensor(shown)
    spread = float(fit.std())
    score = {shift: float(fit[rows, (at + shift) % number].mean()) for shift in range(-2, 3)}
    best = max(score, key=lambda shift: score[shift])
    if best and score[best] - score[0] > CLEARLY * spread * (2 / len(shown)) ** 0.5:
        example = shown[0]
        return [
            error(
                f"the list of names looks shifted: CLIP finds the names fit better {abs(best)} "
                f"place{'s' * (abs(best) > 1)} {'later' if best > 0 else 'earlier'} in the list "
                f"(the regions of label {example}, {names[example]!r}, look like "
                f"{names[(example + best) % number]!r}). Check that each name stands at its label "
                "value; see the sheet."
            )
        ]
    findings = []
    for row, first in enumerate(shown):
        for later, second in enumerate(shown[row + 1 :], row + 1):
            gain = fit[row, second] + fit[later, first] - fit[row, first] - fit[later, second]
            mutual = fit[row].argmax() == second and fit[later].argmax() == first
            if mutual and gain > 2 * spread:
                findings.append(
                    warning(
                        f"{names[first]!r} and {names[second]!r} look exchanged: CLIP finds each "
                        "where the other is labeled. Check the order of `classes`; see the sheet."
                    )
                )
    return findings
