"""The metrics of zero-shot segmentation."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmengine.logging import MMLogger, print_log
from mmseg.evaluation import IoUMetric
from mmseg.registry import METRICS
from PIL import Image
from prettytable import PrettyTable
from torch import Tensor

from mmseg_otseg.errors import UserError, listed
from mmseg_otseg.imaging.outputs import save_image

CALIBRATE = "`mmseg-otseg calibrate` finds one that fits, without training"
CHECK_NAMES = (
    "use class names that CLIP knows (`mmseg-otseg check-data` shows which of them are close to "
    "each other), and CLIP weights and text embeddings of the same CLIP"
)
CHECK_TRAINING = (
    "train for longer, and check images, labels and names with `mmseg-otseg check-data`"
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

    ``mIoU_U`` and ``hIoU`` are left out if no class is unseen, or no pixel has the label of an
    unseen class. A class that occurs neither in the predictions nor in the labels has no IoU (nan)
    and is left out of the means. The split comes from the dataset's ``metainfo``; see
    :class:`ZeroShotDataset`. The metainfo may also have ``trained``, the names of the classes that
    the model was trained on with labels. An unseen class among them is marked, and is left out of
    ``mIoU_S`` and ``mIoU_U`` unless no unseen class would remain. To keep the best checkpoint, use
    ``CheckpointHook(save_best="hIoU", rule="greater")``.

    If the split has ``background="threshold"``, the label K is one more class, in the table and in
    ``mIoU``, which is neither seen nor unseen.

    Labels may have any integer type; those of a :class:`ZeroShotDataset` are classes or ignored.
    What is kept of an image grows with the classes that occur in it, not with those of the split.

    Args:
        ignore_index: Label of the pixels that are left out, besides those that are no class.
        unseen_labeled: Whether the data has labels of the unseen classes. If False, these classes
            are left out of all means. A pixel of a seen class that is predicted as an unseen class
            still counts as wrong.
        nan_to_num: What is reported in place of nan, as a share of 1; no mean is computed from it.
        output_dir: Folder for the predictions, PNG files of class indices: of 8 bits, or of 16 for
            more than 256 classes.
        **kwargs: As in ``IoUMetric``; mIoU is always among the metrics.

    Source:
        Xian et al., "Semantic Projection Network for Zero- and Few-Label Semantic Segmentation"
        (CVPR 2019), for the harmonic mean.
    """

    def __init__(
        self, ignore_index: int | None = None, *, unseen_labeled: bool = True, **kwargs: Any
    ) -> None:
        self.unseen_labeled = unseen_labeled
        asked = kwargs.pop("iou_metrics", "mIoU")
        asked = [asked] if isinstance(asked, str) else list(asked)
        asked = asked if "mIoU" in asked else ["mIoU", *asked]
        super().__init__(-1 if ignore_index is None else ignore_index, iou_metrics=asked, **kwargs)
        self._warned = False

    @property
    def names(self) -> tuple[str, ...]:
        """The classes of the labels, and the background if a threshold decides on it."""
        counted = self.dataset_meta.get("background") == "threshold"
        return (*self.dataset_meta["classes"], *(["background"] if counted else []))

    def process(self, data_batch: dict, data_samples: Sequence[dict]) -> None:
        """Count the pixels of a batch, and write the predictions if there is an ``output_dir``.

        Args:
            data_batch: Not used.
            data_samples: For each image ``pred_sem_seg`` and ``gt_sem_seg``, class indices
                (1, H, W).

        Raises:
            UserError: If the labels of an image do not have the size of its prediction.
        """
        count = len(self.names)
        for sample in data_samples:
            predicted = sample["pred_sem_seg"]["data"][0]
            if not self.format_only:
                labels, known = self.labels_of(sample)
                found, labels = predicted[known].long(), labels[known]
                counts = [
                    torch.bincount(pixels, minlength=count)[:count]  # beyond are no classes
                    for pixels in (labels[found == labels], found, labels)
                ]
                areas = torch.stack(counts).cpu()
                occurring = areas.any(0).nonzero()[:, 0]
                self.results.append(torch.cat([occurring[None], areas[:, occurring]]))
            if self.output_dir is not None:
                values = predicted.cpu().numpy()
                if sample.get("reduce_zero_label"):  # 0 is the background then
                    background = count - bool(self.dataset_meta.get("background"))
                    values = (values + 1) % (background + 1)
                kind = np.uint8 if count < 256 else np.uint16
                file = Path(self.output_dir) / f"{Path(sample['img_path']).stem}.png"
                save_image(Image.fromarray(values.astype(kind)), file)

    def labels_of(self, sample: Mapping[str, Any]) -> tuple[Tensor, Tensor]:
        """The labels of an image, and which of them are not ignored.

        Args:
            sample: As in :meth:`process`.

        Returns:
            Class indices, shape (H, W), int64; and a mask, shape (H, W). Both are on the device of
            the prediction.

        Raises:
            UserError: As in :meth:`process`.
        """
        predicted, labels = (sample[key]["data"][0] for key in ("pred_sem_seg", "gt_sem_seg"))
        if labels.shape != predicted.shape:
            sizes = [" x ".join(map(str, data.shape)) for data in (labels, predicted)]
            raise UserError(
                f"{sample.get('img_path', 'an image')}: its labels have {sizes[0]} pixels, but the "
                f"prediction has {sizes[1]}, like the image on disk. Put LoadAnnotations after "
                "Resize in the test pipeline, so that the labels are not resized."
            )
        labels = labels.to(predicted.device).long()
        known = (labels >= 0) & (labels < len(self.names)) & (labels != self.ignore_index)
        return labels, known

    def compute_metrics(self, results: list) -> dict[str, float]:
        """Compute the metrics and log the table of classes.

        Args:
            results: For each image, the C classes that occur in it and their areas of intersection,
                prediction and label in pixels, shape (4, C), int64.

        Returns:
            The metrics by name, in percent.

        Raises:
            UserError: If the dataset has no class split.
        """
        if self.format_only:
            return super().compute_metrics(results)
        areas = torch.zeros(3, len(self.names), dtype=torch.int64)
        for occurring, *counts in results:
            areas[:, occurring] += torch.stack(counts)
        metrics, by_class = self.metrics_of(areas)
        unseen = self.reported_classes()[1]
        if unseen and self.unseen_labeled and "hIoU" not in metrics and not self._warned:
            self._warned = True
            print_log(
                "No pixel has the label of an unseen class, so mIoU(U) and hIoU are not measured. "
                "If the data has no such labels, set unseen_labeled=False in this metric "
                "(ZeroShotIoUMetric).",
                MMLogger.get_current_instance(),
                logging.WARNING,
            )
        self._log(metrics, by_class, areas[2].numpy() > 0)
        return metrics

    def metrics_of(self, areas: Tensor) -> tuple[dict[str, float], dict[str, np.ndarray]]:
        """Compute the metrics from the areas of all images.

        Args:
            areas: Areas of intersection, prediction and label in pixels, shape (3, K), int64.

        Returns:
            The metrics by name, in percent; and what they are the means of, by name, each (K,), as
            shares of 1.

        Raises:
            UserError: As in :meth:`compute_metrics`.
        """
        seen, unseen = self.reported_classes()
        # In float64: float32 cannot represent every number of pixels beyond 2^24.
        intersection, prediction, label = areas.double()
        union = prediction + label - intersection
        by_class = self.total_area_to_metrics(
            intersection, union, prediction, label, self.metrics, None, self.beta
        )
        overall = by_class.pop("aAcc")
        measured = self.unseen_labeled and bool(label[unseen].any())
        for values in by_class.values():
            values[[] if label[seen].any() else seen] = np.nan
            values[[] if measured else unseen] = np.nan
        metrics = {"pAcc": float(overall)}
        metrics |= {f"m{name}": _mean(values) for name, values in by_class.items()}
        metrics["mIoU_S"] = _mean(by_class["IoU"][seen])
        if measured:
            both = metrics["mIoU_S"], _mean(by_class["IoU"][unseen])
            metrics["mIoU_U"], metrics["hIoU"] = both[1], 2 * both[0] * both[1] / (sum(both) or 1)
        return {name: float(self._in_percent(value)) for name, value in metrics.items()}, by_class

    def _in_percent(self, values: Any) -> np.ndarray:
        """Shares of 1 as they are reported."""
        nan = np.nan if self.nan_to_num is None else self.nan_to_num
        return np.round(100 * np.nan_to_num(values, nan=nan), 2)

    def reported_classes(self) -> tuple[list[int], list[int]]:
        """Indices of the seen and of the unseen classes whose means are reported.

        Unseen classes that the model was trained on with labels are left out, if others remain.

        Raises:
            UserError: As in :meth:`compute_metrics`.
        """
        meta = self.dataset_meta or {}
        if "seen" not in meta or "unseen" not in meta:
            raise UserError(
                "ZeroShotIoUMetric needs the class split of the dataset: wrap the dataset of "
                "this dataloader in ZeroShotDataset, or use IoUMetric."
            )
        unseen, trained = list(meta["unseen"]), self._trained()
        return list(meta["seen"]), [index for index in unseen if index not in trained] or unseen

    def _trained(self) -> list[int]:
        """Those of the unseen classes that the model was trained on with labels."""
        meta = self.dataset_meta
        names = set(meta.get("trained", ()))
        return [index for index in meta["unseen"] if meta["classes"][index] in names]

    def _log(
        self, metrics: dict[str, float], by_class: dict[str, np.ndarray], labeled: np.ndarray
    ) -> None:
        """Log the tables and what they mean; ``labeled`` (K,) are the classes with labels."""
        logger, names = MMLogger.get_current_instance(), self.names
        seen, unseen = self.reported_classes()
        trained, at_zero = self._trained(), labeled & (by_class["IoU"] == 0)
        kinds = ["S"] * len(self.dataset_meta["classes"]) + ["B"]
        for index in self.dataset_meta["unseen"]:
            kinds[index] = "T" if index in trained else "U"
        table = PrettyTable()
        table.add_column("Class", list(names))
        table.add_column("S/U", kinds[: len(names)])
        for name, values in by_class.items():
            table.add_column(name, self._in_percent(values).tolist())
        table.add_column("", ["at 0" if zero else "" for zero in at_zero])
        titles = {"mIoU_S": "mIoU(S)", "mIoU_U": "mIoU(U)"}
        summary = PrettyTable([titles.get(name, name) for name in metrics])
        summary.add_row(list(metrics.values()))
        print_log(
            f"per class results:\n{table}\nsummary (S = seen, U = unseen):\n{summary}", logger
        )
        if trained:
            print_log(
                "T = unseen in this split, but the model was trained with labels: "
                f"{', '.join(names[index] for index in trained)}. mIoU(U) "
                f"{'is not zero-shot' if {*trained} & {*unseen} else 'leaves them out'}.",
                logger,
                logging.WARNING,
            )
        groups = [[index for index in group if labeled[index]] for group in (seen, unseen)]
        if advice := self._advice(groups[0], groups[1], at_zero):
            print_log(advice, logger, logging.WARNING)

    def _advice(self, seen: list[int], unseen: list[int], at_zero: np.ndarray) -> str:
        """What to do about the labeled classes at 0; empty if there is nothing to say."""
        names, calibrated = self.dataset_meta["classes"], self.dataset_meta.get("calibrated")
        groups = {"seen": seen, "unseen": unseen}
        lost = {kind: [names[i] for i in group if at_zero[i]] for kind, group in groups.items()}
        few_found = {kind: 2 * len(lost[kind]) > len(group) for kind, group in groups.items()}
        if few_found["seen"] and (few_found["unseen"] or not unseen or calibrated):
            advice = f"The model finds little of what it was trained on: {CHECK_TRAINING}."
        elif few_found["seen"]:
            advice = f"The seen-class bias is probably too large: {CALIBRATE}."
        elif not lost["unseen"]:
            return ""
        elif calibrated:
            advice = f"The seen-class bias is calibrated already: {CHECK_NAMES}."
        else:
            advice = f"The seen-class bias may be too small: {CALIBRATE}. Otherwise {CHECK_NAMES}."
        counts = [
            f"{len(lost[kind])} of {len(group)} {kind} classes ({listed(lost[kind])})"
            for kind, group in groups.items()
            if lost[kind]
        ]
        return f"At 0, although they have labels: {' and '.join(counts)}. {advice}"


def _mean(values: np.ndarray) -> float:
    """The mean of the values (K,) that are not nan; nan if all are nan."""
    values = values[~np.isnan(values)]
    return float(values.mean()) if values.size else float("nan")
