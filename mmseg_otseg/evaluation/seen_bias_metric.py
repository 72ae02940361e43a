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
from mmseg_otseg.models.segmentors.sliding import place_labels

from .zero_shot_iou_metric import PIXELS_AT_ONCE, ZeroShotIoUMetric

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
        align_corners: How class maps are resized to the size of the image, as in the head.
        none_below: Pixels whose best value, less the bias, is below this are background.
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

    def __init__(
        self,
        biases: Sequence[float] | None = None,
        align_corners: bool = False,
        none_below: float | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        biases = DEFAULT_BIASES if biases is None else biases
        if not len(biases):
            raise UserError("SeenBiasMetric needs at least one bias to try")
        self.biases, self.align_corners = sorted({float(bias) for bias in biases}), align_corners
        self.none_below = -math.inf if none_below is None else none_below
        self.table: list[dict[str, float]] = []

    def process(self, data_batch: dict, data_samples: Sequence[dict]) -> None:
        """Add the areas of a batch.

        Args:
            data_batch: Not used.
            data_samples: For each image ``seg_logits``, probabilities (K, h, w) of any size, and
                ``pred_sem_seg`` and ``gt_sem_seg``, class indices (1, H, W).

        Raises:
            UserError: If no class is seen or unseen; or as in :class:`ZeroShotIoUMetric`.
        """
        self.reported_classes()  # refuses data without a split
        meta = self.dataset_meta
        if not len(meta["unseen"]) or not len(meta["seen"]):
            raise UserError(
                "a seen-class bias decides between seen and unseen classes, but the dataset has "
                f"{len(meta['seen'])} seen and {len(meta['unseen'])} unseen ones: choose another "
                "dataset or split"
            )
        for sample in data_samples:
            labels, known = self.labels_of(sample)
            height, width = labels.shape
            best = [labels[known]]
            for kind in ("seen", "unseen"):
                classes = torch.as_tensor(meta[kind], device=labels.device)
                maps = [sample["seg_logits"]["data"][classes]]
                found, values = place_labels(maps, (height, width), self.align_corners)
                best += [classes[found[known]], values[known]]
            parts = zip(*(values.split(PIXELS_AT_ONCE) for values in best))
            areas = torch.stack([self._areas(*part) for part in parts]).sum(0)
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

    def _areas(
        self,
        labels: Tensor,
        seen_class: Tensor,
        best_seen: Tensor,
        unseen_class: Tensor,
        best_unseen: Tensor,
    ) -> Tensor:
        """Areas of M labeled pixels for every bias.

        Args:
            labels: Class indices, shape (M,), int64.
            seen_class: The best seen class of each pixel, shape (M,), int64.
            best_seen: Its probability, shape (M,).
            unseen_class: The best unseen class of each pixel, shape (M,), int64.
            best_unseen: Its probability, shape (M,).

        Returns:
            Areas of intersection, prediction and label in pixels, shape (biases, 3, K), or K + 1
            with a background, int64.
        """
        count = len(self.names)
        # The number of biases at which the seen class wins; these are always the smallest. Ties go
        # to the class with the lower index, as in argmax. At some of them it may be background.
        first = seen_class < unseen_class
        wins, shown = torch.zeros_like(labels), torch.zeros_like(labels)
        for bias in self.biases:
            left = best_seen - bias
            won = (left > best_unseen) | ((left == best_unseen) & first)
            wins += won
            shown += won & (left >= self.none_below)

        def by_wins(wins: Tensor, found: Tensor, taken: Tensor) -> Tensor:
            """Number of the ``taken`` pixels with each number of wins and class."""
            index = (wins * count + found)[taken]
            return torch.bincount(index, minlength=(len(self.biases) + 1) * count).view(-1, count)

        def predicted(to_seen: Tensor, to_unseen: Tensor) -> Tensor:
            """Number of pixels predicted as each class at each bias, (biases, count).

            Args:
                to_seen: Which pixels to count where the seen class wins.
                to_unseen: Which pixels to count where the unseen class wins.
            """
            # At bias number i, the seen class wins at the pixels that have more than i wins.
            seen = by_wins(shown, seen_class, to_seen).flip(0).cumsum(0).flip(0)[1:]
            to_unseen = to_unseen & (best_unseen >= self.none_below)
            return seen + by_wins(wins, unseen_class, to_unseen).cumsum(0)[:-1]

        everywhere = torch.ones_like(first)
        intersection = predicted(seen_class == labels, unseen_class == labels)
        prediction = predicted(everywhere, everywhere)
        # The background, the last of all, has what no class was predicted at: with no threshold,
        # nothing.
        none = labels == count - 1
        intersection[:, -1] += none.sum() - predicted(none, none).sum(1)
        prediction[:, -1] += len(labels) - prediction.sum(1)
        label = torch.bincount(labels, minlength=count).expand_as(prediction)
        return torch.stack([intersection, prediction, label], dim=1).cpu()

    def compute_metrics(self, results: list) -> dict[str, float]:
        """Compute the metrics of every bias as the base class does, and log the best bias.

        Args:
            results: Sums of the areas, one for each process.

        Returns:
            The row of :attr:`table` for the best bias.
        """
        self.table = [
            {"seen_bias": bias, **self.metrics_of(areas)[0]}
            for bias, areas in zip(self.biases, sum(results))
        ]
        best = best_bias(self.table)
        print_log(
            f"of {len(self.table)} seen-class biases {best['seen_bias']:g} gives the highest hIoU",
            MMLogger.get_current_instance(),
        )
        return dict(best)


def best_bias(table: Sequence[dict[str, float]]) -> dict[str, float]:
    """The row with the highest hIoU; among equal ones, the row whose bias is nearest to zero.

    Args:
        table: For each bias ``seen_bias``, and ``hIoU`` if it is measured.

    Raises:
        UserError: If no row has an hIoU: no pixel has the label of a seen class, or none that of an
            unseen class.
    """
    known = [row for row in table if not math.isnan(row.get("hIoU", math.nan))]
    if not known:
        raise UserError(
            "no seen-class bias can be chosen, because the data has no labeled pixel of seen or of "
            "unseen classes: calibrate on other data, or set model.decode_head.seen_bias yourself"
        )
    return max(known, key=lambda row: (row["hIoU"], -abs(row["seen_bias"])))
