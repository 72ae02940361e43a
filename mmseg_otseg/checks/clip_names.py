"""Checks how CLIP understands class names, and whether it finds them where the labels are."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from mmcv import imresize
from torch import Tensor

from mmseg_otseg.checks.finding import Finding, error, warning
from mmseg_otseg.models.clip import load_clip
from mmseg_otseg.models.text import (
    TextTower,
    build_text_tower,
    encode_texts,
    resolve_templates,
)

# Limits on the distance to the nearest name, relative to the median in the list, and on the cosine.
NEAR, NEAR_COSINE = 0.3, 0.9
CLEARLY = 3.0  # by how many standard deviations another order of names must fit better


class Reading(NamedTuple):
    """How CLIP understands the names.

    Attributes:
        nearest: For each class, the index of the class with the nearest text, (K,).
        cosine: Their cosine similarity, (K,).
        embeddings: Unit-length text embeddings, the mean over the templates, (K, D).
        findings: What is wrong with them.
    """

    nearest: list[int]
    cosine: list[float]
    embeddings: Tensor
    findings: list[Finding]


class NameReader:
    """A CLIP that encodes names and image regions.

    Args:
        clip: ``dict(model=..., pretrained=...)``, see :func:`~mmseg_otseg.models.clip.load_clip`.
        templates: Prompt templates for the names.
        mean: Mean of the images, RGB, 0..255.
        std: Standard deviation of the images, RGB, 0..255.
    """

    def __init__(
        self,
        clip: Mapping[str, Any],
        templates: str | Sequence[str] = "otseg6",
        mean: Sequence[float] = (123.675, 116.28, 103.53),
        std: Sequence[float] = (58.395, 57.12, 57.375),
    ) -> None:
        self.clip = load_clip(**clip)
        self.trained = clip.get("pretrained") is not None  # random weights know no language
        self.tower: TextTower = build_text_tower(self.clip, clip["model"])
        self.templates = resolve_templates(templates)
        self.mean, self.std = torch.tensor(mean), torch.tensor(std)

    def read(self, names: Sequence[str]) -> Reading:
        """Find the nearest other name of each class name, and names that are too similar.

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
                    f"{names[first]!r} and {names[second]!r} mean nearly the same to CLIP (cosine "
                    f"{cosine[first]:.3f}; {1 - usual:.3f} is usual in this list). Choose words "
                    "that describe a visible difference."
                )
            )
        return Reading(nearest.tolist(), cosine.tolist(), embeddings, findings)

    @torch.no_grad()
    def names_of_regions(
        self, crops: Mapping[int, Sequence[np.ndarray]], names: Sequence[str], embeddings: Tensor
    ) -> list[Finding]:
        """Check whether the names fit the regions with their labels better than other orders.

        Args:
            crops: For each class index, some images of its regions, (h, w, 3), RGB, uint8.
            names: The class names.
            embeddings: Their unit-length text embeddings, (K, D).
        """
        shown = sorted(index for index, found in crops.items() if found)
        if len(shown) < 3:
            return []
        rows = []
        for index in shown:
            images = torch.stack([self._as_input(crop) for crop in crops[index]])
            rows.append(F.normalize(self.clip.encode_image(images), dim=-1).mean(0) @ embeddings.T)
        fit = torch.stack(rows)
        fit = fit - fit.mean(0)  # some names are close to every image
        return _better_orders(fit, shown, names)

    def _as_input(self, crop: np.ndarray) -> Tensor:
        """A crop as CLIP's input, (3, height, width)."""
        size = self.clip.visual.image_size
        height, width = size if isinstance(size, tuple) else (size, size)
        pixels = torch.from_numpy(imresize(crop, (width, height))).float()
        return ((pixels - self.mean) / self.std).permute(2, 0, 1)


def _better_orders(fit: Tensor, shown: list[int], names: Sequence[str]) -> list[Finding]:
    """Find shifts of the list of names, and swaps of two names, that fit clearly better.

    If CLIP knows nothing about the images, the similarities are noise. The difference between the
    means of S similarities for two orders then has sqrt(2 / S) times their standard deviation.

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
                f"{names[(example + best) % number]!r}). Check that each name is at the position "
                "of its label value; see the sheet."
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
                        f"{names[first]!r} and {names[second]!r} look swapped: CLIP finds each "
                        "where the other is labeled. Check the order of `classes`; see the sheet."
                    )
                )
    return findings
