"""Checks of the numbers of pixels and images in the data."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np

from mmseg_otseg.checks.finding import Finding, error, note, warning
from mmseg_otseg.checks.reading import Sample, first_of, named
from mmseg_otseg.structures import IGNORED, ClassSplit

MOSTLY = 0.9


def count_findings(
    subsets: dict[str, Sequence[Sample]], split: ClassSplit, background: int | None
) -> list[Finding]:
    """Problems with the numbers of pixels in the data.

    Args:
        subsets: The samples of ``"train"`` and of ``"val"``.
        split: The class split.
        background: The label value that is not a class, if there is one.
    """
    pixels = {subset: sum_of(samples) for subset, samples in subsets.items()}
    findings: list[Finding] = []
    for subset, counts in pixels.items():
        findings += _missing_classes(subset, counts, split)
        findings += _ignored(subset, subsets[subset], counts)
    total = sum(pixels.values(), np.zeros(256, np.int64))
    found = total[: split.num_classes] > 0
    if len(split.classes) > 1 and found.any():
        findings += _shifted(found, total, split, background)
    return findings


def sum_of(samples: Iterable[Sample]) -> np.ndarray:
    """Pixels of each class index in all samples, (256,) int64."""
    return sum((sample.pixels for sample in samples), np.zeros(256, np.int64))


def _missing_classes(subset: str, counts: np.ndarray, split: ClassSplit) -> list[Finding]:
    """Classes that never occur in a subset."""
    if not counts.any():
        return []
    seen = [split.classes[index] for index in split.seen if not counts[index]]
    unseen = [split.classes[index] for index in split.unseen if not counts[index]]
    findings = []
    if len(seen) == len(split.seen):
        findings.append(
            error(f"{subset}: no pixel has a seen class. Check the label files and `classes`.")
        )
    elif seen and subset == "train":
        findings.append(
            warning(
                f"train: no pixel is labeled {', '.join(seen)}, so nothing is learned about it. "
                "Add labels, remove the names from `classes`, or add them to `unseen`."
            )
        )
    elif seen:
        findings.append(
            warning(f"{subset}: no pixel is labeled {', '.join(seen)}, so it is not evaluated.")
        )
    if unseen and subset != "train":
        every = len(unseen) == len(split.unseen)
        findings.append(
            warning(
                f"{subset}: no pixel is labeled {', '.join(unseen)}, and hIoU counts an unseen "
                "class as 0 where it is predicted. "
                + (
                    "If the unseen classes are labeled nowhere, use configs/own_data/"
                    "otseg_512_seen_labels.py (or zegot_...), which evaluates seen classes only."
                    if every
                    else "Choose other unseen classes, or label some val images with them."
                )
            )
        )
    return findings


def _ignored(subset: str, samples: Sequence[Sample], counts: np.ndarray) -> list[Finding]:
    """Images and pixels without any label."""
    findings = []
    empty = [s for s in samples if s.pixels.any() and s.pixels[IGNORED] == s.pixels.sum()]
    share = counts[IGNORED] / max(counts.sum(), 1)
    if empty:
        findings.append(
            warning(
                f"{subset}: in {named(empty)} every pixel is ignored. Label them or leave them out."
            )
        )
    if share > MOSTLY:
        findings.append(
            warning(
                f"{subset}: {100 * share:.0f} % of all pixels are ignored. Check that their value "
                "(255 or `background`) is really not a class."
            )
        )
    if np.flatnonzero(counts).tolist() == [0, IGNORED]:
        findings.append(
            warning(
                f"{subset}: the label files hold only one class and 255. If 255 marks your object "
                "(a mask of 0 and 255), the object is lost, because 255 is always ignored: write 1 "
                "instead, and set background=0."
            )
        )
    return findings


def _shifted(
    found: np.ndarray, total: np.ndarray, split: ClassSplit, background: int | None
) -> list[Finding]:
    """Signs that label values and names are shifted by one."""
    first, last = split.classes[0], split.classes[-1]
    if background is None and not found[0] and found[-1]:
        return [
            warning(
                f"the value 0 ({first}) never occurs and {len(found) - 1} ({last}) does: do the "
                f"labels start at 1? Then remove {first} from `classes` if it is not a class, and "
                "set background=0; otherwise check that `classes` starts with the name of 0."
            )
        ]
    if background == 0 and not found[-1] and found[0] and total[IGNORED]:
        return [
            warning(
                f"the last class, {last}, never occurs, and with background=0 the names start at "
                "the value 1. If 0 is your first class, set background=None."
            )
        ]
    if not found[-1] and found[:-1].all():
        return [
            warning(
                f"the last class, {last}, is the only one that never occurs: does `classes` have "
                "an extra or misplaced name? Every name must be at its value's position."
            )
        ]
    return []


def image_findings(subsets: dict[str, Sequence[Sample]]) -> list[Finding]:
    """Images in both subsets, or twice in one; subsets that look swapped."""
    findings: list[Finding] = []
    of = {subset: [s for s in samples if s.digest] for subset, samples in subsets.items()}
    known = {sample.digest for sample in of.get("train", ())}
    both = [sample for sample in of.get("val", ()) if sample.digest in known]
    if both:
        findings.append(
            error(
                f"{len(both)} of {len(of['val'])} val images are in train too ("
                f"{first_of([Path(sample.image).name for sample in both])}): results on them "
                "are meaningless. Remove them from one of the two."
            )
        )
    for subset, samples in of.items():
        twice = len(samples) - len({sample.digest for sample in samples})
        if twice:
            findings.append(warning(f"{subset}: number of duplicate images: {twice}."))
    sizes = {subset: len(samples) for subset, samples in subsets.items()}
    if "val" in sizes and sizes["val"] > sizes.get("train", 0) > 0:
        findings.append(
            warning(
                f"val has more images ({sizes['val']}) than train ({sizes['train']}): are the "
                "two folders swapped?"
            )
        )
    return findings


def hidden_findings(samples: Sequence[Sample], split: ClassSplit) -> list[Finding]:
    """Whether labels of unseen classes survive the training pipeline."""
    before, after = sum_of(samples), np.zeros(256, np.int64)
    for sample in samples:
        after += sample.trained
    unseen = list(split.unseen)
    if after[unseen].sum():
        names = [split.classes[index] for index in unseen if after[index]]
        return [
            error(
                f"{after[unseen].sum():,} pixels of unseen classes ({', '.join(names)}) keep their "
                "label in training. Set setting='inductive' in the ZeroShotDataset of "
                "train_dataloader, or report the run as supervised."
            )
        ]
    if not unseen:
        return [note("no class is unseen: nothing is hidden, and hIoU is not computed.")]
    seen = list(split.seen)
    blind = [s for s in samples if s.pixels[unseen].any() and not s.trained[seen].any()]
    found = [
        note(
            f"{before[unseen].sum():,} pixels of unseen classes in train; none keeps its label in "
            f"the training pipeline (all {len(samples)} samples, augmented once)."
        )
    ]
    if len(blind) > len(samples) / 5:
        found.append(
            warning(
                f"{len(blind)} of {len(samples)} training samples show no seen class after "
                "augmentation, so nothing is learned from them. Choose fewer unseen classes, or "
                "set drop_unseen_images."
            )
        )
    return found
