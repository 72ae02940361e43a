"""The zero-shot numbers for many seen-class biases, from one pass over the data."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from mmengine.dist import get_rank, get_world_size
from mmengine.logging import MMLogger, print_log
from mmseg.registry import METRICS
from torch import Tensor

from .zero_shot_iou_metric import ZeroShotIoUMetric, check_label_size

#: From well below zero, for models whose training favors unseen classes, to nearly 1.
DEFAULT_BIASES = tuple(float(bias) for bias in np.arange(-300, 901, 5) / 1000)


@METRICS.register_module()
class SeenBiasMetric(ZeroShotIoUMetric):
    """What :class:`ZeroShotIoUMetric` would say for each of several seen-class biases.

    The model must predict without a bias (``seen_bias=0`` in its head). Subtracting a bias never
    changes which seen class is best at a pixel, nor which unseen one: it only decides between these
    two. So two class maps, and for every pixel the number of biases that leave it to the seen
    class, hold the predictions for all biases.

    The metrics returned are those of the best bias: the one of highest hIoU, of several the one
    nearest to zero. :attr:`table` holds all.

    Args:
        biases: Biases to try, probabilities; None is :data:`DEFAULT_BIASES`.
        **kwargs: As in :class:`ZeroShotIoUMetric`.

    Attributes:
        table: After an evaluation: for each bias, in increasing order, ``seen_bias`` and the
            metrics of :class:`ZeroShotIoUMetric`.

    Raises:
        ValueError: If there is no bias. In an evaluation: if no class is unseen, or none is seen.
    """

    def __init__(self, biases: Sequence[float] | None = None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        biases = DEFAULT_BIASES if biases is None else biases
        if not len(biases):
            raise ValueError("SeenBiasMetric needs at least one bias to try")
        self.biases = sorted({float(bias) for bias in biases})
        self.table: list[dict[str, float]] = []

    def process(self, data_batch: dict, data_samples: Sequence[dict]) -> None:
        """Add the areas of a batch.

        Args:
            data_batch: Not used.
            data_samples: For each image ``seg_logits``, probabilities (K, H, W), and
                ``gt_sem_seg``, class indices (1, H, W).
        """
        seen, unseen = (torch.tensor(indices, dtype=torch.int64) for indices in self._split())
        if not len(unseen) or not len(seen):
            raise ValueError(
                "a seen-class bias decides between seen and unseen classes, but the dataset has "
                f"{len(seen)} seen and {len(unseen)} unseen ones: choose another dataset or split"
            )
        for sample in data_samples:
            probabilities = sample["seg_logits"]["data"]
            check_label_size(sample, probabilities)
            labels = sample["gt_sem_seg"]["data"][0].to(probabilities.device)
            known = labels != self.ignore_index
            areas = self._areas(probabilities[:, known], labels[known].long(), seen, unseen)
            # A running sum: a table of areas for each image and bias would fill the memory. The
            # last image stands apart, as it may be one that only pads this process's share.
            number, total, last = self.results or (0, 0, 0)
            self.results[:] = [number + 1, total + last, areas]

    def evaluate(self, size: int) -> dict[str, float]:
        """Add up the areas of all processes and compute the metrics.

        mmengine's samplers deal the images out in turn, and give the processes that would have one
        less an image that another process has too.

        Args:
            size: Number of images in the dataset.
        """
        if self.results:
            number, total, last = self.results
            padding = (number - 1) * get_world_size() + get_rank() >= size
            self.results[:] = [total + (0 * last if padding else last)]
        return super().evaluate(size)

    def _areas(self, probabilities: Tensor, labels: Tensor, seen: Tensor, unseen: Tensor) -> Tensor:
        """Areas of one image for every bias.

        Args:
            probabilities: Shape (K, M), of the M labeled pixels.
            labels: Class indices, shape (M,), int64.
            seen: Indices of the seen classes.
            unseen: Indices of the unseen classes.

        Returns:
            Areas of intersection, union, prediction and label in pixels, shape (biases, 4, K),
            float64.
        """
        seen, unseen = seen.to(labels.device), unseen.to(labels.device)
        best_seen, at_seen = probabilities[seen].max(0)
        best_unseen, at_unseen = probabilities[unseen].max(0)
        seen_class, unseen_class = seen[at_seen], unseen[at_unseen]
        # How many of the biases, from the smallest on, leave the pixel to its seen class. On a tie
        # argmax takes the class of lower index.
        first = seen_class < unseen_class
        wins = torch.zeros_like(labels)
        for bias in self.biases:
            left = best_seen - bias
            wins += (left > best_unseen) | ((left == best_unseen) & first)

        def by_bias(classes: Tensor, taken: Tensor | None = None) -> Tensor:
            """Pixels of each class, (biases + 1, K), by the number of their wins."""
            index = wins * len(probabilities) + classes
            index = index if taken is None else index[taken]
            size = (len(self.biases) + 1) * len(probabilities)
            return torch.bincount(index, minlength=size).view(-1, len(probabilities)).double()

        def predicted(right: bool) -> Tensor:
            """Pixels predicted (rightly) as each class at each bias, (biases, K)."""
            to_seen = by_bias(seen_class, seen_class == labels if right else None)
            to_unseen = by_bias(unseen_class, unseen_class == labels if right else None)
            # Bias number i leaves a pixel to its seen class if the pixel has more than i wins.
            to_seen = to_seen.flip(0).cumsum(0).flip(0)[1:]
            return to_seen + to_unseen.cumsum(0)[:-1]

        intersection, prediction = predicted(right=True), predicted(right=False)
        label = torch.bincount(labels, minlength=len(probabilities)).double()
        label = label.expand_as(prediction)
        union = prediction + label - intersection
        return torch.stack([intersection, union, prediction, label], dim=1).cpu()

    def compute_metrics(self, results: list) -> dict[str, float]:
        """Compute the metrics of every bias, by mmseg's own formulas, and log the best.

        Args:
            results: Sums of the areas, one for each process.

        Returns:
            The best row of :attr:`table`.
        """
        self.table = [
            {"seen_bias": bias, **super(SeenBiasMetric, self).compute_metrics([tuple(areas)])}
            for bias, areas in zip(self.biases, sum(results))
        ]
        best = best_bias(self.table)
        print_log(
            f"of {len(self.table)} seen-class biases {best['seen_bias']:g} gives the highest hIoU",
            MMLogger.get_current_instance(),
        )
        return dict(best)

    def _log(self, *args: Any) -> None:
        """No table of classes for each bias."""


def best_bias(table: Sequence[dict[str, float]]) -> dict[str, float]:
    """The row of highest hIoU, of several the one whose bias is nearest to zero.

    Args:
        table: For each bias ``seen_bias`` and ``hIoU``.

    Raises:
        ValueError: If no bias has an hIoU, which is nan when the data holds and the model predicts
            no seen class, or no unseen one.
    """
    known = [row for row in table if not math.isnan(row["hIoU"])]
    if not known:
        raise ValueError(
            "no seen-class bias can be chosen: hIoU is nan for each of them, as no seen or no "
            "unseen class occurs in the data. Take more data, or another class split"
        )
    return max(known, key=lambda row: (row["hIoU"], -abs(row["seen_bias"])))
