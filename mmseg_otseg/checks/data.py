"""Checks all data of a config before training."""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmengine.config import Config
from mmengine.dataset import BaseDataset
from mmengine.registry import init_default_scope
from mmseg.registry import DATASETS, MODELS
from torch import Tensor

from mmseg_otseg.checks.labels import (
    Finding,
    count_findings,
    error,
    hidden_findings,
    image_findings,
    problem_findings,
    warning,
)
from mmseg_otseg.checks.names import NameComparison, compare_names, name_findings, region_findings
from mmseg_otseg.checks.samples import SampleSummary, draw_samples, read_samples
from mmseg_otseg.datasets import FolderDataset, ZeroShotDataset
from mmseg_otseg.datasets.guarded_pipeline import UNHIDDEN_LABEL
from mmseg_otseg.datasets.label_rule import background_value
from mmseg_otseg.engine import resolve
from mmseg_otseg.errors import UserError, listed
from mmseg_otseg.structures import ClassSplit

MAX_CROPS = 6  # of each class, for CLIP


@dataclass
class DataReport:
    """Result of the check.

    Attributes:
        split: The class split; None if it is invalid.
        samples: The samples read, by subset of the data (``"train"``, ``"val"``).
        comparison: How CLIP understands the names; None if CLIP was not used.
        findings: What is wrong, and what to do.
        datasets: The data, by subset.
    """

    split: ClassSplit | None = None
    samples: dict[str, Sequence[SampleSummary]] = field(default_factory=dict)
    comparison: NameComparison | None = None
    findings: list[Finding] = field(default_factory=list)
    datasets: dict[str, ZeroShotDataset] = field(default_factory=dict)

    @property
    def can_train(self) -> bool:
        """Whether training makes sense: no finding is an error."""
        return all(finding.level != "error" for finding in self.findings)

    def draw_samples(self, path: Path) -> bool:
        """Draw some samples as the model sees them into an image file.

        Returns:
            Whether it was written; False if no sample can be drawn.
        """
        figure = draw_samples(self.datasets)
        if figure is None:
            return False
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            figure.savefig(path, dpi=70)
        except OSError as error:
            raise OSError(f"{path} cannot be written: {error.strerror or error}.") from error
        return True


def check_data(cfg: Config, workers: int = 0, ask_clip: bool = True) -> DataReport:
    """Read all data of a config and report what is wrong with it.

    Args:
        cfg: A config with ``train_dataloader``, ``val_dataloader`` and a model with a class split.
        workers: Number of worker processes that read.
        ask_clip: Whether to build the config's CLIP and check the names with it.

    Returns:
        What was read and what was found. A dataset or a CLIP that cannot be built is a finding too.
    """
    init_default_scope("mmseg")
    report = DataReport()
    complete = _attempt(report, partial(resolve, cfg), "config: ")
    for subset in ("train", "val") if complete else ():
        dataset = _attempt(report, partial(_build, complete, subset), f"{subset}: ")
        if dataset is not None:
            report.datasets[subset] = dataset
    if not report.datasets:
        return report
    first = next(iter(report.datasets.values()))
    split = report.split = first.split
    own = split.names[: len(split.foreground)]  # a background is named as such on purpose
    report.findings += name_findings([name for names in own for name in names])
    for subset, dataset in report.datasets.items():
        samples = report.samples[subset] = read_samples(dataset, workers)
        report.findings += problem_findings(
            subset, samples, split, background_value(dataset.leaves[0])
        )
        report.findings += _lone_labels(subset, dataset)
    report.findings += count_findings(report.samples, split, background_value(first.leaves[0]))
    report.findings += image_findings(report.samples)
    if "train" in report.datasets and report.datasets["train"].hide_as is not None:
        report.findings += hidden_findings(report.samples["train"], split)
    if ask_clip:
        _attempt(report, partial(_ask_clip, complete, report), "the names were not checked: ")
    return report


def _attempt(report: DataReport, action: Callable[[], Any], prefix: str) -> Any:
    """Run an action; an error the user can fix becomes a finding, and the check continues."""
    try:
        return action()
    except (ValueError, TypeError, KeyError, AttributeError, OSError) as problem:
        text = str(problem.args[0] if isinstance(problem, KeyError) else problem)
        if all(known.text.split(": ", 1)[-1] != text for known in report.findings):
            report.findings.append(error(f"{prefix}{text}"))
        return None


def _build(cfg: Config, subset: str) -> ZeroShotDataset:
    """The dataset of a subset."""
    loader = cfg.get(f"{subset}_dataloader")
    if not loader:
        raise UserError(f"the config has no {subset}_dataloader.")
    dataset = DATASETS.build(loader.dataset)
    if not isinstance(dataset, ZeroShotDataset):
        raise UserError(
            f"{subset}_dataloader.dataset is a {type(dataset).__name__}: wrap it in "
            "ZeroShotDataset."
        )
    return dataset


def _lone_labels(subset: str, dataset: ZeroShotDataset) -> Iterator[Finding]:
    """Label files without an image."""
    for leaf in dataset.leaves:
        lone = leaf.find_pairs().lone_labels if isinstance(leaf, FolderDataset) else ()
        if lone:
            names = listed([Path(path).name for path in lone])
            yield warning(
                f"{subset}: {len(lone)} label files without an image are not used ({names}). Add "
                "the images, or remove the label files."
            )


def _ask_clip(cfg: Config, report: DataReport) -> None:
    """Check the names with the config's CLIP, and image regions too if it is pretrained."""
    assert report.split is not None
    model, names = cfg.model, report.split.joined_names
    clip = model.get("clip") or model.neck.clip
    report.comparison = compare_names(clip, names, model.neck.text.get("templates", "otseg6"))
    report.findings += report.comparison.findings
    if clip.get("pretrained") is None:
        return
    subset = "val" if "val" in report.datasets else "train"
    samples, locations = report.samples[subset], report.datasets[subset].sample_locations
    crops = {}
    for label in range(report.split.num_classes):
        largest = heapq.nlargest(MAX_CROPS, ((s.pixels[label], i) for i, s in enumerate(samples)))
        crops[label] = [_crop(*locations[index], label) for pixels, index in largest if pixels]
    report.findings += region_findings(
        clip,
        MODELS.build(model.data_preprocessor),
        crops,
        report.split.classes,
        report.comparison.embeddings,
    )


def _crop(leaf: BaseDataset, index: int, label: int) -> Tensor:
    """The part of the image around all pixels of a class, (3, h, w), BGR."""
    results = leaf.pipeline.run_with_unhidden(
        leaf.get_data_info(index), lambda step: type(step).__name__.startswith("Load")
    )
    rows, columns = np.nonzero(results[UNHIDDEN_LABEL] == label)
    image = results["img"][rows.min() : rows.max() + 1, columns.min() : columns.max() + 1]
    return torch.from_numpy(image).permute(2, 0, 1)
