"""The zero-shot metrics for many seen-class biases, from one pass over the data."""

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

from mmseg_otseg.errors import UserError

from .zero_shot_iou_metric import ZeroShotIoUMetric, check_label_size

#: -0.3 to 0.9 in steps of 0.005; negative biases are for models that favor unseen classes.
DEFAULT_BIASES = tuple(float(bias) for bias in np.arange(-300, 901, 5) / 1000)


@METRICS.register_module()
class SeenBiasMetric(ZeroShotIoUMetric):
    """The metrics of :class:`ZeroShotIoUMetric` for each of several seen-class biases.

    The model must predict without a bias (``seen_bias=0`` in its head). Subtracting a bias from all
    seen classes changes neither the best seen class of a pixel nor its best unseen class; it only
    decides between these two. Two class maps, and for each pixel the number of biases at which its
    seen class wins, are therefore enough to count the predictions for all biases.

    The metrics returned are those of the best bias, see :func:`best_bias`; :attr:`table` has the
    metrics of all biases.

    Args:
        biases: Biases to try, in units of probability; None means :data:`DEFAULT_BIASES`.
        **kwargs: As in :class:`ZeroShotIoUMetric`.

    Attributes:
        table: After an evaluation: for each bias, in increasing order, ``seen_bias`` and the
            metrics of :class:`ZeroShotIoUMetric`, in percent.

    Raises:
        UserError: If there is no bias. In an evaluation: if no class is unseen, no class is seen,
            or :func:`best_bias` cannot choose.

    Source:
        Chao et al., "An Empirical Study and Analysis of Generalized Zero-Shot Learning for Object
        Recognition in the Wild" (ECCV 2016), calibrated stacking.
    """

    def __init__(self, biases: Sequence[float] | None = None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        biases = DEFAULT_BIASES if biases is None else biases
        if not len(biases):
            raise UserError("SeenBiasMetric needs at least one bias to try")
        self.biases = sorted({float(bias) for bias in biases})
        self.table: list[dict[str, float]] = []

    def process(self, data_batch: dict, data_samples: Sequence[dict]) -> None:
        """Add the areas of a batch.

        Args:
            data_batch: Not used.
            data_samples: For each image ``seg_logits``, probabilities (K, H, W), and
                ``gt_sem_seg``, class indices (1, H, W).

        Raises:
            UserError: If no class is seen or unseen, or the labels of an image do not have the
                size of its prediction.
        """
        seen, unseen = (torch.tensor(indices, dtype=torch.int64) for indices in self._split())
        if not len(unseen) or not len(seen):
            raise UserError(
                "a seen-class bias decides between seen and unseen classes, but the dataset has "
                f"{len(seen)} seen and {len(unseen)} unseen ones: choose another dataset or split"
            )
        for sample in data_samples:
            probabilities = sample["seg_logits"]["data"]
            check_label_size(sample, probabilities)
            labels = sample["gt_sem_seg"]["data"][0].to(probabilities.device)
            known = labels != self.ignore_index
            areas = self._areas(probabilities[:, known], labels[known].long(), seen, unseen)
            # Keep a running sum, because the areas of each image and bias would fill the memory.
            # The last image is kept apart, because `evaluate` may have to leave it out.
            number, total, last = self.results or (0, 0, 0)
            self.results[:] = [number + 1, total + last, areas]

    def evaluate(self, size: int) -> dict[str, float]:
        """Add up the areas of all processes and compute the metrics.

        mmengine's samplers distribute the images over the processes in turn. A process that would
        get one image fewer than others is also given an image that another process has; that image
        is not counted again.

        Args:
            size: Number of images in the dataset.

        Returns:
            The metrics of the best bias.
        """
        if self.results:
            number, total, last = self.results
            padding = (number - 1) * get_world_size() + get_rank() >= size
            self.results[:] = [total + (0 * last if padding else last)]
        return super().evaluate(size)

    def _areas(self, probabilities: Tensor, labels: Tensor, seen: Tensor, unseen: Tensor) -> Tensor:
        """Areas of one image for every bias.

        Args:
            probabilities: Probabilities of the M labeled pixels, shape (K, M).
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
        # The number of biases at which the seen class wins; these are always the smallest. Ties go
        # to the class with the lower index, as in argmax.
        first = seen_class < unseen_class
        wins = torch.zeros_like(labels)
        for bias in self.biases:
            left = best_seen - bias
            wins += (left > best_unseen) | ((left == best_unseen) & first)

        def by_bias(classes: Tensor, taken: Tensor | None = None) -> Tensor:
            """Number of pixels with each number of wins and class, (biases + 1, K)."""
            index = wins * len(probabilities) + classes
            index = index if taken is None else index[taken]
            size = (len(self.biases) + 1) * len(probabilities)
            return torch.bincount(index, minlength=size).view(-1, len(probabilities)).double()

        def predicted(right: bool) -> Tensor:
            """Number of pixels predicted as each class at each bias, (biases, K).

            Args:
                right: Whether to count only correct predictions.
            """
            to_seen = by_bias(seen_class, seen_class == labels if right else None)
            to_unseen = by_bias(unseen_class, unseen_class == labels if right else None)
            # At bias number i, the seen class wins at the pixels that have more than i wins.
            to_seen = to_seen.flip(0).cumsum(0).flip(0)[1:]
            return to_seen + to_unseen.cumsum(0)[:-1]

        intersection, prediction = predicted(right=True), predicted(right=False)
        label = torch.bincount(labels, minlength=len(probabilities)).double()
        label = label.expand_as(prediction)
        union = prediction + label - intersection
        return torch.stack([intersection, union, prediction, label], dim=1).cpu()

    def compute_metrics(self, results: list) -> dict[str, float]:
        """Compute the metrics of every bias as the base class does, and log the best bias.

        Args:
            results: Sums of the areas, one for each process.

        Returns:
            The row of :attr:`table` for the best bias.
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
        """Log nothing: there would be a table of classes for each bias."""


def best_bias(table: Sequence[dict[str, float]]) -> dict[str, float]:
    """The row with the highest hIoU; among equal ones, the row whose bias is nearest to zero.

    Args:
        table: For each bias ``seen_bias`` and ``hIoU``.

    Raises:
        UserError: If hIoU is nan for every bias. This happens if the seen classes, or the unseen
            classes, occur neither in the labels nor in the predictions.
    """
    known = [row for row in table if not math.isnan(row["hIoU"])]
    if not known:
        raise UserError(
            "no seen-class bias can be chosen: hIoU is nan for each of them, because no seen or no "
            "unseen class occurs in the data. Use more data or another class split"
        )
    return max(known, key=lambda row: (row["hIoU"], -abs(row["seen_bias"])))
