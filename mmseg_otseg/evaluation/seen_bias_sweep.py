"""The zero-shot metrics for many seen-class biases at once, and a bias stored in a checkpoint.

The head subtracts the bias, in :meth:`mmseg_otseg.models.ZeroShotHead.activate`; a training-free
one in ``merge_names``.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmengine.config import Config
from mmengine.dist import get_rank, get_world_size
from mmengine.logging import MMLogger, print_log
from mmseg.registry import DATASETS, METRICS
from torch import Tensor

from mmseg_otseg.engine.checkpoint import check_target, read_checkpoint
from mmseg_otseg.engine.config import resolve, zero_shot_metrics
from mmseg_otseg.engine.hooks.checks import image_set
from mmseg_otseg.engine.runner import ZeroShotRunner
from mmseg_otseg.errors import UserError
from mmseg_otseg.files import write_atomically
from mmseg_otseg.models.decode_heads import ZeroShotHead, state_key
from mmseg_otseg.models.segmentors.sliding import argmax_at_size

from .zero_shot_iou_metric import ZeroShotIoUMetric

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
        none_below: Pixels whose best value, less the bias, is below this are background.
        **kwargs: As in :class:`ZeroShotIoUMetric`.

    Attributes:
        table: After an evaluation: for each bias, in increasing order, ``seen_bias`` and the
            metrics of :class:`ZeroShotIoUMetric`, in percent.

    Raises:
        UserError: In an evaluation, if no class is unseen, or :func:`best_bias` cannot choose.

    Source:
        Chao et al., "An Empirical Study and Analysis of Generalized Zero-Shot Learning for Object
        Recognition in the Wild" (ECCV 2016), calibrated stacking.
    """

    def __init__(
        self,
        biases: Sequence[float] | None = None,
        none_below: float | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        biases = DEFAULT_BIASES if biases is None else biases
        self.biases = sorted({float(bias) for bias in biases})
        self.none_below = -math.inf if none_below is None else none_below
        self.table: list[dict[str, float]] = []

    def process(self, data_batch: dict, data_samples: Sequence[dict]) -> None:
        """Add the areas of a batch.

        Args:
            data_batch: Not used.
            data_samples: For each image ``seg_logits``, probabilities (K, h, w) of any size, and
                ``pred_sem_seg`` and ``gt_sem_seg``, class indices (1, H, W).
        """
        self.reported_classes()  # refuses data without a split
        if not self.dataset_meta["unseen"]:
            raise UserError(
                "a seen-class bias decides between seen and unseen classes, but the dataset has no "
                "unseen ones: choose another dataset or split"
            )
        for sample in data_samples:
            labels, known = self.labels_of(sample)
            height, width = labels.shape
            best = []
            for kind in ("seen", "unseen"):
                classes = torch.as_tensor(self.dataset_meta[kind], device=labels.device)
                maps = [sample["seg_logits"]["data"][classes]]
                found, values = argmax_at_size(maps, (height, width))
                best += [classes[found[known]], values[known]]
            areas = self._areas(labels[known], *best)
            # Keep a running sum, because the areas of each image and bias would fill the memory.
            # The last image is kept apart, because `evaluate` may have to leave it out.
            number, total, last = self.results or (0, 0, 0)
            self.results[:] = [number + 1, total + last, areas]

    def evaluate(self, size: int) -> dict[str, float]:
        """Add up the areas of all processes and compute the metrics.

        mmengine's samplers distribute the images over the processes in turn. A process that would
        get one image fewer than others is also given an image that another process has; of the
        ``size`` images in the dataset, none is counted twice.
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

        Takes for each pixel its label, its best seen class with the probability, and its best
        unseen class with the probability, shape (M,) each. Returns areas of intersection,
        prediction and label in pixels, shape (biases, 3, K), or K + 1 with a background,
        int64.
        """
        count, number = len(self.names), len(self.biases)
        biases = torch.tensor(self.biases, device=labels.device)
        # The seen class wins at the first of the biases. Ties go to the lower index, as in argmax.
        margin, first = best_seen - best_unseen, seen_class < unseen_class
        ties_won, ties_lost = (torch.searchsorted(biases, margin, right=r) for r in (True, False))
        wins = torch.where(first, ties_won, ties_lost)
        # At the last of these it may be background, which is the last class.
        shown = torch.searchsorted(biases, best_seen - self.none_below, right=True).minimum(wins)
        background = torch.full_like(labels, count - 1)
        unseen_class = torch.where(best_unseen < self.none_below, background, unseen_class)
        # So a pixel is predicted as one class from the first bias on, as others from `shown` and
        # from `wins` on. Areas are sums over biases of what begins less what ends there.
        everywhere = torch.ones_like(first)
        edges = [torch.zeros_like(labels), shown, wins, torch.full_like(labels, number)]
        areas = labels.new_zeros(2, (number + 1) * count)
        for begin, end, found in zip(edges, edges[1:], (seen_class, background, unseen_class)):
            for area, taken in zip(areas, (found == labels, everywhere)):
                for edge, sign in ((begin, 1), (end, -1)):
                    places = (edge * count + found)[taken]
                    area += sign * torch.bincount(places, minlength=len(area))
        intersection, prediction = areas.view(2, number + 1, count).cumsum(1)[:, :-1]
        label = torch.bincount(labels, minlength=count).expand_as(prediction)
        return torch.stack([intersection, prediction, label], dim=1).cpu()

    def compute_metrics(self, results: list) -> dict[str, float]:
        """Fill :attr:`table` from the sums of all processes; return the row of the best bias."""
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


def sweep_seen_bias(
    cfg: Config,
    checkpoint: str | Path | None,
    biases: Sequence[float] | None = None,
    subset: str = "val",
) -> list[dict[str, float]]:
    """Evaluate a checkpoint for each bias with mmengine's Runner, in one pass over the data.

    Args:
        cfg: Config of a model with a :class:`ZeroShotHead`; it is not changed.
        checkpoint: File to load; None evaluates the model as it is built from the config.
        biases: Seen-class biases, in units of probability; None means :data:`DEFAULT_BIASES`.
        subset: The data to evaluate on, ``"val"`` or ``"test"``.

    Returns:
        For each bias, in increasing order: ``seen_bias``, in units of probability; and ``mIoU_S``,
        ``mIoU_U``, ``hIoU`` and the other metrics of :class:`ZeroShotIoUMetric`, in percent.

    Raises:
        UserError: As in :class:`SeenBiasMetric`.
    """
    cfg = _evaluation_only(cfg, subset)
    cfg.model.decode_head.seen_bias = 0.0
    metrics = zero_shot_metrics(cfg[f"{subset}_evaluator"])
    cfg[f"{subset}_evaluator"] = dict(
        type="SeenBiasMetric",
        biases=None if biases is None else list(biases),
        none_below=(cfg.model.get("test_cfg") or {}).get("none_below"),
        ignore_index=metrics[0].get("ignore_index") if metrics else None,
    )
    cfg.load_from = None if checkpoint is None else str(checkpoint)
    runner = ZeroShotRunner.from_cfg(cfg)
    getattr(runner, subset)()
    return getattr(runner, f"{subset}_evaluator").metrics[0].table


def store_seen_bias(cfg: Config, checkpoint: str | Path, bias: float, target: str | Path) -> None:
    """Write a copy of a checkpoint that also holds a seen-class bias.

    A model that loads it uses this bias for testing and inference, unless its config sets one. The
    file also records which validation images chose it, so that a test on the same images can say
    so (``meta.calibrated_on``, see :func:`~mmseg_otseg.engine.hooks.checks.image_set`).

    Args:
        cfg: The config with which the bias was found. The bias applies only to the same
            ``predict_from`` of the head.
        checkpoint: File to read.
        bias: The bias, in units of probability.
        target: File to write. It may be the same file; that file stays intact if writing fails.
    """
    check_target(target)
    content = read_checkpoint(checkpoint, "cpu")
    state = content.get("state_dict", content)
    key = state_key(cfg.model.decode_head.get("predict_from", ZeroShotHead.predict_from))
    state[f"decode_head.{key}"] = torch.tensor(bias, dtype=torch.float64)
    if "state_dict" in content and cfg.get("val_dataloader"):
        dataset = DATASETS.build(resolve(cfg).val_dataloader.dataset)
        content.setdefault("meta", {})["calibrated_on"] = image_set(dataset)
    with write_atomically(Path(target)) as part:
        torch.save(content, part)


def _evaluation_only(cfg: Config, subset: str) -> Config:
    """A copy that evaluates on one subset only, and neither resumes, saves nor draws anything."""
    cfg = Config(cfg.to_dict())
    other = "test" if subset == "val" else "val"
    for name in ("cfg", "dataloader", "evaluator"):
        cfg[f"{other}_{name}"] = None
    cfg.resume = False
    if cfg.get("visualizer"):
        # mmengine keeps one visualizer per name, which writes to the folder of its first run.
        cfg.visualizer.pop("name", None)
    if cfg.get("default_hooks"):
        cfg.default_hooks.pop("visualization", None)
        cfg.default_hooks.checkpoint = None  # mmengine's hook fails if there is no training
    return cfg
