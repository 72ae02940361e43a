"""The metrics of zero-shot segmentation."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from mmengine.logging import MMLogger, print_log
from mmseg.evaluation import IoUMetric
from mmseg.registry import METRICS
from prettytable import PrettyTable
from torch import Tensor

from mmseg_otseg.errors import UserError

_WHAT_TO_TRY = (
    "What to try, in this order: another seen-class bias (tools/analysis/calibrate_seen_bias.py "
    "finds it without training); class names that CLIP knows (tools/analysis/check_data.py shows "
    "which of them are close to each other); CLIP weights and text embeddings of the same CLIP."
)


def check_label_size(sample: Mapping[str, Any], prediction: Tensor) -> None:
    """Refuse labels of another size than the prediction, because the two cannot be compared.

    Args:
        sample: An image's ``gt_sem_seg``, class indices (1, H, W), and perhaps its ``img_path``.
        prediction: The prediction for that image, (..., H, W).

    Raises:
        UserError: If the two sizes differ.
    """
    labels, predicted = (
        " x ".join(map(str, data.shape[-2:])) for data in (sample["gt_sem_seg"]["data"], prediction)
    )
    if labels != predicted:
        raise UserError(
            f"{sample.get('img_path', 'an image')}: its labels have {labels} pixels, but the "
            f"prediction has {predicted}, like the image on disk. Put LoadAnnotations after Resize "
            "in the test pipeline, so that the labels are not resized."
        )


@METRICS.register_module()
class ZeroShotIoUMetric(IoUMetric):
    """Mean IoU of the seen and of the unseen classes, and their harmonic mean.

    The metrics, all in percent:

    - ``pAcc``: share of the pixels that are classified correctly, ignored pixels left out;
    - ``mIoU``, ``mAcc``: mean IoU and mean accuracy over all classes;
    - ``mIoU_S``, ``mIoU_U``: mean IoU over the seen and over the unseen classes;
    - ``hIoU``: 2 * mIoU_S * mIoU_U / (mIoU_S + mIoU_U), or 0 if both are 0;
    - means of the Dice or F-score metrics, if ``iou_metrics`` requests them.

    ``mIoU_U`` and ``hIoU`` are left out if no class is unseen or the unseen classes have no labels.
    A class that occurs neither in the predictions nor in the labels has no IoU (nan) and is left
    out of the means. The split comes from the dataset's ``metainfo``; see
    :class:`ZeroShotDataset`. The metainfo may also have ``trained``, the names of the classes that
    the model was trained on with labels. An unseen class among them is marked, and is left out of
    ``mIoU_S`` and ``mIoU_U`` unless no unseen class would remain. To keep the best checkpoint, use
    ``CheckpointHook(save_best="hIoU", rule="greater")``.

    Args:
        unseen_labeled: Whether the data has labels of the unseen classes. If False, these classes
            are left out of all means. A pixel of a seen class that is predicted as an unseen class
            still counts as wrong.
        **kwargs: As in ``IoUMetric``; mIoU is always among the metrics.

    Source:
        Xian et al., "Semantic Projection Network for Zero- and Few-Label Semantic Segmentation"
        (CVPR 2019), for the harmonic mean.
    """

    def __init__(self, *, unseen_labeled: bool = True, **kwargs: Any) -> None:
        self.unseen_labeled = unseen_labeled
        asked = kwargs.pop("iou_metrics", "mIoU")
        asked = [asked] if isinstance(asked, str) else list(asked)
        super().__init__(iou_metrics=asked if "mIoU" in asked else ["mIoU", *asked], **kwargs)

    def process(self, data_batch: dict, data_samples: Sequence[dict]) -> None:
        """Add the areas of a batch.

        Args:
            data_batch: Not used.
            data_samples: For each image ``pred_sem_seg`` and ``gt_sem_seg``, class indices
                (1, H, W).

        Raises:
            UserError: If the labels of an image do not have the size of its prediction.
        """
        if not self.format_only:
            for sample in data_samples:
                check_label_size(sample, sample["pred_sem_seg"]["data"])
        super().process(data_batch, data_samples)

    def compute_metrics(self, results: list) -> dict[str, float]:
        """Compute the metrics and log the table of classes.

        Args:
            results: For each image, its areas of intersection, union, prediction and label in
                pixels, each (K,).

        Returns:
            The metrics by name, in percent.

        Raises:
            UserError: If the dataset has no class split, or hides labels.
        """
        if self.format_only:
            return super().compute_metrics(results)
        seen, unseen = self.reported_classes()
        # In float64: sums of float32 lose single pixels beyond 2^24.
        areas = [sum(area.double() for area in column) for column in zip(*results)]
        by_class = self.total_area_to_metrics(*areas, self.metrics, self.nan_to_num, self.beta)
        overall = by_class.pop("aAcc")
        if not self.unseen_labeled:
            for values in by_class.values():
                values[unseen] = np.nan

        metrics = {"pAcc": float(overall)}
        metrics |= {f"m{name}": _mean(values) for name, values in by_class.items()}
        metrics["mIoU_S"] = _mean(by_class["IoU"][seen])
        if unseen and self.unseen_labeled:
            metrics["mIoU_U"] = _mean(by_class["IoU"][unseen])
            metrics["hIoU"] = _harmonic_mean(metrics["mIoU_S"], metrics["mIoU_U"])
        metrics = {name: round(100 * value, 2) for name, value in metrics.items()}
        at_zero = (by_class["IoU"] == 0) & (areas[3].cpu().numpy() > 0)
        self._log(metrics, by_class, set(unseen), at_zero)
        return metrics

    @property
    def names(self) -> set[str]:
        """Names of the zero-shot metrics of this split, as used in a hook's ``save_best``."""
        unseen = self.unseen_labeled and self.reported_classes()[1]
        names = ["mIoU_S", "mIoU_U", "hIoU"] if unseen else ["mIoU_S"]
        return {f"{self.prefix}/{name}" if self.prefix else name for name in names}

    def reported_classes(self) -> tuple[list[int], list[int]]:
        """Indices of the seen and of the unseen classes whose means are reported.

        Unseen classes that the model was trained on with labels are left out, if others remain.

        Raises:
            UserError: As in :meth:`compute_metrics`.
        """
        seen, unseen = self._split()
        trained = self._trained(unseen)
        return seen, [index for index in unseen if index not in trained] or unseen

    def _trained(self, unseen: list[int]) -> list[int]:
        """Those of the unseen classes that the model was trained on with labels."""
        trained = set(self.dataset_meta.get("trained", ()))
        return [index for index in unseen if self.dataset_meta["classes"][index] in trained]

    def _split(self) -> tuple[list[int], list[int]]:
        meta = self.dataset_meta or {}
        if "seen" not in meta or "unseen" not in meta:
            raise UserError(
                "ZeroShotIoUMetric needs the class split of the dataset: wrap the dataset of "
                "this dataloader in ZeroShotDataset, or use IoUMetric."
            )
        if meta.get("hide_as") is not None:
            raise UserError(
                "the labels of unseen classes are hidden in this dataset, so a model cannot be "
                "tested on it: set test_mode=True in the dataset that ZeroShotDataset wraps here."
            )
        return list(meta["seen"]), list(meta["unseen"])

    def _log(
        self,
        metrics: dict[str, float],
        by_class: dict[str, np.ndarray],
        unseen: set[int],
        at_zero: np.ndarray,
    ) -> None:
        """Log the tables; ``at_zero`` (K,) are classes that occur and are never found."""
        logger = MMLogger.get_current_instance()
        names = self.dataset_meta["classes"]
        table = PrettyTable()
        table.add_column("Class", list(names))
        trained = self._trained(self.dataset_meta["unseen"])
        kinds = [
            "U" if index in self.dataset_meta["unseen"] else "S" for index in range(len(names))
        ]
        for index in trained:
            kinds[index] = "T"
        table.add_column("S/U", kinds)
        for name, values in by_class.items():
            table.add_column(name, np.round(100 * values, 2).tolist())
        table.add_column("", ["at 0" if zero else "" for zero in at_zero])
        titles = {"mIoU_S": "mIoU(S)", "mIoU_U": "mIoU(U)"}
        summary = PrettyTable([titles.get(name, name) for name in metrics])
        summary.add_row(list(metrics.values()))
        print_log(
            f"per class results:\n{table}\nsummary (S = seen, U = unseen):\n{summary}", logger
        )
        if trained:
            left_out = not unseen.intersection(trained)
            print_log(
                "T = unseen in this split, but the model was trained with labels: "
                f"{', '.join(names[index] for index in trained)}. "
                + (
                    "They are left out of mIoU(S) and mIoU(U)."
                    if left_out
                    else "mIoU(U) is not zero-shot."
                ),
                logger,
                logging.WARNING,
            )
        lost = [names[index] for index in np.flatnonzero(at_zero) if index in unseen]
        if lost and metrics["mIoU_S"] > 0:
            problem = (
                f"{len(lost)} of {len(unseen)} unseen classes are at 0 ({', '.join(lost)}), but "
                f"the seen classes are at {metrics['mIoU_S']:.2f} on average."
            )
            print_log(f"{problem} {_WHAT_TO_TRY}", logger, logging.WARNING)
        elif metrics["mIoU_S"] == 0 < metrics.get("mIoU_U", 0):
            problem = (
                "All seen classes are at 0: the seen-class bias is larger than their lead over the "
                "unseen classes."
            )
            print_log(f"{problem} {_WHAT_TO_TRY}", logger, logging.WARNING)


def _mean(values: np.ndarray) -> float:
    """The mean of the values (K,) that are not nan; nan if all are nan."""
    values = values[~np.isnan(values)]
    return float(values.mean()) if values.size else float("nan")


def _harmonic_mean(first: float, second: float) -> float:
    return 0.0 if first == second == 0 else 2 * first * second / (first + second)
