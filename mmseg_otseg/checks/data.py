"""Checks all data of a config before training."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from mmengine.config import Config
from mmengine.dataset import BaseDataset
from mmengine.registry import init_default_scope
from mmseg.registry import DATASETS

from mmseg_otseg.checks.clip_names import NameReader, Reading
from mmseg_otseg.checks.counts import count_findings, hidden_findings, image_findings
from mmseg_otseg.checks.finding import Finding, error, warning
from mmseg_otseg.checks.names import name_findings
from mmseg_otseg.checks.problems import problem_findings
from mmseg_otseg.checks.reading import Sample, read_samples
from mmseg_otseg.checks.sheet import draw_sheet, samples_of
from mmseg_otseg.datasets import FolderDataset, ZeroShotDataset
from mmseg_otseg.datasets.guarded_pipeline import WHOLE_LABEL
from mmseg_otseg.engine import resolve
from mmseg_otseg.errors import UserError
from mmseg_otseg.imaging import palette_for
from mmseg_otseg.structures import ClassSplit

CROPS = 6  # of each class, for CLIP
IMAGES_SHOWN = 6


@dataclass
class DataReport:
    """Result of the check.

    Attributes:
        split: The class split; None if it is invalid.
        samples: The samples read, by subset of the data (``"train"``, ``"val"``).
        reading: How CLIP understands the names; None if CLIP was not used.
        findings: What is wrong, and what to do.
        sheet: Path of the sheet of samples; None if there is nothing to show.
    """

    split: ClassSplit | None = None
    samples: dict[str, Sequence[Sample]] = field(default_factory=dict)
    reading: Reading | None = None
    findings: list[Finding] = field(default_factory=list)
    sheet: Path | None = None

    @property
    def can_train(self) -> bool:
        """Whether training makes sense: no finding is an error."""
        return all(finding.level != "error" for finding in self.findings)


def check_data(
    cfg: Config, sheet: Path | None = None, workers: int = 0, ask_clip: bool = True
) -> DataReport:
    """Read all data of a config and report what is wrong with it.

    Args:
        cfg: A config with ``train_dataloader``, ``val_dataloader`` and a model with a class split.
        sheet: Image file to draw samples into; None draws no samples.
        workers: Number of worker processes that read.
        ask_clip: Whether to build the config's CLIP and check the names with it.

    Returns:
        What was read and what was found. A dataset or a CLIP that cannot be built is a finding too.

    Raises:
        OSError: If the sheet cannot be written.
    """
    init_default_scope("mmseg")
    report = DataReport()
    data: dict[str, ZeroShotDataset] = {}
    for subset in ("train", "val"):
        dataset = _attempt(report, partial(_build, cfg, subset), f"{subset}: ")
        if dataset is not None:
            data[subset] = dataset
    if not data:
        return report
    split = report.split = next(iter(data.values())).split
    report.findings += name_findings(split.classes)
    backgrounds = {subset: _background(dataset) for subset, dataset in data.items()}
    for subset, dataset in data.items():
        report.samples[subset] = read_samples(dataset, workers)
        report.findings += problem_findings(
            subset, report.samples[subset], split, backgrounds[subset]
        )
        report.findings += _lone_labels(subset, dataset)
    background = next(iter(backgrounds.values()))
    report.findings += count_findings(report.samples, split, background)
    report.findings += image_findings(report.samples)
    if "train" in data and data["train"].hide_as is not None:
        report.findings += hidden_findings(report.samples["train"], split)
    if ask_clip:
        _attempt(report, partial(_ask_clip, cfg, report, data), "the names were not checked: ")
    if sheet is not None:
        shown = {subset: samples_of(dataset, IMAGES_SHOWN) for subset, dataset in data.items()}
        shown = {subset: samples for subset, samples in shown.items() if samples}
        if shown:
            palette = palette_for(split.classes, next(iter(data.values())).metainfo)
            sheet.parent.mkdir(parents=True, exist_ok=True)
            draw_sheet(shown, split, palette).savefig(sheet, dpi=70)
            report.sheet = sheet
    return report


def _attempt(report: DataReport, action: Callable[[], Any], prefix: str) -> Any:
    """Run an action; an error the user can fix becomes a finding, and the check continues."""
    try:
        return action()
    except (ValueError, TypeError, KeyError, OSError) as problem:
        text = str(problem.args[0] if isinstance(problem, KeyError) else problem)
        finding = error(f"{prefix}{text}")
        if all(known.text.split(": ")[-1] != text for known in report.findings):
            report.findings.append(finding)
        return None


def _build(cfg: Config, subset: str) -> ZeroShotDataset:
    """The dataset of a subset."""
    config = cfg.get(f"{subset}_dataloader")
    if not config:
        raise UserError(f"the config has no {subset}_dataloader.")
    split = cfg.model.get("split")
    if split is None:
        split = cfg.model.neck.text.split
    dataset = DATASETS.build(resolve(cfg)[f"{subset}_dataloader"].dataset)
    if not isinstance(dataset, ZeroShotDataset):
        raise UserError(
            f"{subset}_dataloader.dataset is a {type(dataset).__name__}: wrap it in "
            "ZeroShotDataset."
        )
    return dataset


def _background(dataset: ZeroShotDataset) -> int | None:
    """The label value that is not a class; None if every value is a class."""
    leaf = dataset.leaves[0]
    background = leaf.background if isinstance(leaf, FolderDataset) else None
    return 0 if background is None and getattr(leaf, "reduce_zero_label", False) else background


def _lone_labels(subset: str, dataset: ZeroShotDataset) -> list[Finding]:
    """Label files without an image."""
    findings = []
    for leaf in dataset.leaves:
        if isinstance(leaf, FolderDataset):
            lone = leaf.find_pairs().lone_labels
            if lone:
                names = ", ".join(Path(path).name for path in lone[:5])
                findings.append(
                    warning(
                        f"{subset}: {len(lone)} label files without an image are not used "
                        f"({names}). Add the images, or remove the label files."
                    )
                )
    return findings


def _ask_clip(cfg: Config, report: DataReport, data: Mapping[str, ZeroShotDataset]) -> None:
    """Check the names with the config's CLIP, and image regions too if it is pretrained."""
    assert report.split is not None
    neck = cfg.model.get("neck") or {}
    text = neck.get("text")
    templates = text.get("templates", "otseg6") if isinstance(text, Mapping) else "otseg6"
    preprocessor = cfg.model.get("data_preprocessor") or {}
    statistics = {key: preprocessor[key] for key in ("mean", "std") if preprocessor.get(key)}
    clip = cfg.model.get("clip") or neck["clip"]
    reader = NameReader(clip, templates, **statistics)
    report.reading = reader.read(report.split.classes)
    report.findings += report.reading.findings
    if reader.trained:
        crops = _crops(report, data)
        report.findings += reader.names_of_regions(
            crops, report.split.classes, report.reading.embeddings
        )


def _crops(
    report: DataReport, data: Mapping[str, ZeroShotDataset]
) -> dict[int, Sequence[np.ndarray]]:
    """Some regions of each class, RGB, from the images in which it covers the most pixels."""
    assert report.split is not None
    subset = "val" if "val" in data else "train"
    places = [(leaf, index) for leaf in data[subset].leaves for index in range(len(leaf))]
    pixels = np.stack([sample.pixels for sample in report.samples[subset]])
    crops: dict[int, list[np.ndarray]] = {}
    for label in range(report.split.num_classes):
        # Reversed, not negated: the counts are unsigned.
        largest = np.argsort(pixels[:, label], kind="stable")[::-1][:CROPS]
        crops[label] = [
            _crop(places[place], label) for place in largest if pixels[place, label] > 0
        ]
    return dict(crops)


def _crop(place: tuple[BaseDataset, int], label: int) -> np.ndarray:
    """The part of the image around all pixels of a class, (h, w, 3), RGB."""
    leaf, index = place
    results = leaf.pipeline.run_whole(
        leaf.get_data_info(index), lambda step: type(step).__name__.startswith("Load")
    )
    rows, columns = np.nonzero(results[WHOLE_LABEL] == label)
    image = results["img"][rows.min() : rows.max() + 1, columns.min() : columns.max() + 1]
    return np.ascontiguousarray(image[..., ::-1])
