"""What is wrong with the labels and images of samples, and what to do."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

from mmseg_otseg.checks.samples import UNREADABLE, SampleSummary, pixels_per_class
from mmseg_otseg.datasets.label_rule import COCO_STUFF_HINT, is_raw_coco_stuff
from mmseg_otseg.errors import listed
from mmseg_otseg.structures import IGNORED, MAX_CLASSES, ClassSplit

MAX_LABEL_VALUES = 40  # a gray photograph has more
MAX_LISTED = 5  # items in a message
MAX_BLIND = 0.2  # share of the training samples without a seen class
BACKGROUND_0 = "background=0 (reduce_zero_label=True in mmseg's dataset classes)"
COLOR_MODES = ("RGB", "RGBA", "LA", "CMYK", "YCbCr")


class Finding(NamedTuple):
    """What was found and what to do about it.

    Attributes:
        level: ``"error"`` (training is pointless), ``"warning"`` (the result may suffer) or
            ``"note"`` (worth knowing).
        text: One or two sentences.
    """

    level: str
    text: str


error = partial(Finding, "error")
warning = partial(Finding, "warning")
note = partial(Finding, "note")


# Samples that cannot be used ---------------------------------------------------------------------


def problem_findings(
    subset: str, samples: Sequence[SampleSummary], split: ClassSplit, background: int | None
) -> Iterator[Finding]:
    """Samples that cannot be used, one finding for each kind of reason.

    Args:
        subset: ``"train"`` or ``"val"``, for the messages.
        samples: All samples of that subset.
        split: The class split.
        background: The label value that is not a class, if there is one.
    """
    kinds: dict[str, list[SampleSummary]] = {"color": [], "JPEG": [], "values": [], "other": []}
    for sample in samples:
        if sample.problem:
            kind = "values" if sample.wrong else "other"
            kind = "color" if sample.mode in COLOR_MODES else kind
            kinds["JPEG" if sample.mode == "JPEG" else kind].append(sample)
    if bad := kinds["color"]:
        remedy = "Convert them to single-channel PNGs with the index of the class."
        if any(_is_label_map(sample.image) for sample in bad[:MAX_LISTED]):
            remedy = "The images look like label maps: `images` and `labels` are swapped."
        yield error(
            f"{subset}: {_label_files(bad)} colors, not one class index per pixel. {remedy}"
        )
    if bad := kinds["JPEG"]:
        yield error(
            f"{subset}: {_label_files(bad)} been saved as JPEG, which changes the values along all "
            "edges. Create them again as PNG."
        )
    if bad := kinds["values"]:
        wrong = sorted({value for sample in bad for value in sample.wrong})
        zero = any(s.pixels[0] or 0 in s.values for s in samples)
        yield error(
            f"{subset}: {_label_files(bad)} the values {listed(wrong)}, which are not classes. "
            f"{_hint(wrong, zero, split, background)}"
        )
    if bad := kinds["other"]:
        reasons = " ".join(sample.problem for sample in bad[:MAX_LISTED])
        more = len(bad) - MAX_LISTED
        yield error(f"{subset}: {reasons}" + (f" {more} more samples cannot be used." * (more > 0)))


def _hint(wrong: Sequence[int], zero: bool, split: ClassSplit, background: int | None) -> str:
    """The likely reason for values that are not allowed.

    Args:
        wrong: These values, in increasing order.
        zero: Whether 0 occurs in the data.
        split: The class split.
        background: The label value that is not a class, if there is one.
    """
    number, last = len(split.foreground), wrong[-1]
    first_is_one = "then the first name belongs to the value 1."
    if is_raw_coco_stuff(split.classes, wrong):
        return COCO_STUFF_HINT
    if list(wrong) in ([IGNORED], [MAX_CLASSES]):
        return f"If {last} marks ignored pixels, set ignore_index={last} in the dataset."
    if last > max(IGNORED, 2 * number) or wrong[0] < 0:
        return (
            "Labels are class indices. If these are instance numbers or codes (such as 1000 times "
            "the class), replace them with class indices."
        )
    if background is None and list(wrong) == [number]:
        if not zero:
            return f"0 never occurs: the labels start at 1. Set {BACKGROUND_0}; {first_is_one}"
        return (
            f"If 0 is the background, set {BACKGROUND_0}; {first_is_one} If {number} is, set "
            f"background={number}. Otherwise `classes` lacks a name."
        )
    if len(wrong) > max(10, number):
        return (
            "So many values cannot be class indices: these are gray images, or label maps that "
            "were resized or compressed. Create them again, resize with nearest neighbor, and save "
            "as PNG."
        )
    if len(wrong) == 1 and background is None:
        return (
            f"If {last} marks pixels without a class, set background={last}. Otherwise `classes` "
            f"needs {last + 1} names."
        )
    and_background = f" and background={background}" if background is not None else ""
    return (
        f"The class list has {number} names{and_background}. Give every value a name, in the order "
        "of the values, or write the ignored value for pixels without a class."
    )


def _is_label_map(path: str) -> bool:
    """Whether an image file has one channel and few values."""
    try:
        with Image.open(path) as image:
            values = np.asarray(image)
    except UNREADABLE:
        return False
    return values.ndim == 2 and len(np.unique(values)) < MAX_LABEL_VALUES


def _label_files(samples: Sequence[SampleSummary]) -> str:
    """The number of label files, the names of the first few, and the verb that follows."""
    names = listed([Path(sample.label or sample.image).name for sample in samples])
    return f"{len(samples)} " + (
        f"label file ({names}) has" if len(samples) == 1 else f"label files ({names}) have"
    )


# Numbers of pixels and images --------------------------------------------------------------------


def count_findings(
    subsets: Mapping[str, Sequence[SampleSummary]], split: ClassSplit, background: int | None
) -> Iterator[Finding]:
    """Classes that never occur, ignored pixels, and label values that look shifted by one.

    Args:
        subsets: The samples of ``"train"`` and of ``"val"``.
        split: The class split.
        background: The label value that is not a class, if there is one.
    """
    total, ignored = (
        pixels_per_class(sample for samples in subsets.values() for sample in samples),
        0,
    )
    for subset, samples in subsets.items():
        counts = pixels_per_class(samples)
        ignored += sum(sample.ignored for sample in samples)
        if any(sample.size for sample in samples):
            yield from _missing_classes(subset, counts, split)
            yield from _ignored(subset, samples, counts)
    found = [total[index] > 0 for index in range(len(split.foreground))]
    first, last = split.foreground[0], split.foreground[-1]
    if background is None and not found[0] and found[-1]:
        yield warning(
            f"the value 0 ({first}) never occurs and {len(found) - 1} ({last}) does: do the "
            f"labels start at 1? Then remove {first} from `classes` if it is not a class, and "
            f"set {BACKGROUND_0}; otherwise check that `classes` starts with the name of 0."
        )
    elif background == 0 and not found[-1] and found[0] and ignored:
        yield warning(
            f"the last class, {last}, never occurs, and with background=0 the names start at "
            "the value 1. If 0 is your first class, set background=None."
        )
    elif not found[-1] and all(found[:-1]) and any(found):
        yield warning(
            f"the last class, {last}, is the only one that never occurs: does `classes` have "
            "an extra or misplaced name? Every name must be at its value's position."
        )


def _missing_classes(subset: str, counts: Counter[int], split: ClassSplit) -> Iterator[Finding]:
    """Classes that never occur in a subset."""
    seen = [split.classes[index] for index in split.seen if not counts[index]]
    unseen = [split.classes[index] for index in split.unseen if not counts[index]]
    if len(seen) == len(split.seen):
        yield error(f"{subset}: no pixel has a seen class. Check the label files and `classes`.")
    elif seen:
        result = "it is not evaluated."
        if subset == "train":
            result = (
                "nothing is learned about it. Add labels, remove the names from `classes`, or add "
                "them to `unseen`."
            )
        yield warning(f"{subset}: no pixel is labeled {listed(seen)}, so {result}")
    if unseen and subset != "train":
        remedy = "Choose other unseen classes, or label some val images with them."
        if len(unseen) == len(split.unseen):
            remedy = (
                "If the unseen classes are labeled nowhere, use configs/own_data/"
                "otseg_512_seen_labels.py (or zegot_...), which evaluates seen classes only."
            )
        yield warning(
            f"{subset}: no pixel is labeled {listed(unseen)}, and hIoU counts an unseen "
            f"class as 0 where it is predicted. {remedy}"
        )


def _ignored(
    subset: str, samples: Sequence[SampleSummary], counts: Counter[int]
) -> Iterator[Finding]:
    """Images and pixels without any label."""
    empty = [sample for sample in samples if sample.ignored and not sample.pixels]
    if empty:
        yield warning(
            f"{subset}: {_label_files(empty)} no labels: every pixel is ignored. Label them or "
            "leave them out."
        )
    if list(counts) == [0] and any(sample.ignored for sample in samples):
        yield warning(
            f"{subset}: the label files hold only one class and 255. If 255 marks your object "
            "(a mask of 0 and 255), the object is lost, because 255 is always ignored: write 1 "
            "instead, and set background=0."
        )


def image_findings(subsets: Mapping[str, Sequence[SampleSummary]]) -> Iterator[Finding]:
    """Images in both subsets, or twice in one; subsets that look swapped."""
    of = {subset: [s for s in samples if s.digest] for subset, samples in subsets.items()}
    known = {sample.digest for sample in of.get("train", ())}
    both = [Path(s.image).name for s in of.get("val", ()) if s.digest in known]
    if both:
        yield error(
            f"{len(both)} of {len(of['val'])} val images are in train too ({listed(both)}): "
            "results on them are meaningless. Remove them from one of the two."
        )
    for subset, samples in of.items():
        twice = len(samples) - len({sample.digest for sample in samples})
        if twice:
            yield warning(f"{subset}: number of duplicate images: {twice}.")
    train, val = (len(subsets.get(subset, ())) for subset in ("train", "val"))
    if val > train > 0:
        yield warning(
            f"val has more images ({val}) than train ({train}): are the two folders swapped?"
        )


def hidden_findings(samples: Sequence[SampleSummary], split: ClassSplit) -> Iterator[Finding]:
    """Whether labels of unseen classes survive the training pipeline.

    Args:
        samples: The training samples.
        split: The class split.
    """
    usable = [sample for sample in samples if not sample.problem]
    after: Counter[int] = Counter()
    for sample in usable:
        after.update(sample.trained)
    unseen, kept = set(split.unseen), sum(after[index] for index in split.unseen)
    if not unseen:
        yield note("no class is unseen: nothing is hidden, and hIoU is not computed.")
    elif kept:
        names = ", ".join(split.classes[index] for index in split.unseen if after[index])
        yield error(
            f"{kept:,} pixels of unseen classes ({names}) keep their label in "
            "training. Set setting='inductive' in the ZeroShotDataset of train_dataloader, or "
            "report the run as supervised."
        )
    elif usable:
        total = pixels_per_class(usable)
        yield note(
            f"{sum(total[i] for i in unseen):,} pixels of unseen classes in train; none keeps its "
            f"label in the training pipeline (all {len(usable)} samples, augmented once)."
        )
        blind = [s for s in usable if unseen & {*s.pixels} and not {*split.seen} & {*s.trained}]
        if len(blind) > MAX_BLIND * len(usable):
            yield warning(
                f"{len(blind)} of {len(usable)} training samples show no seen class after "
                "augmentation, so nothing is learned from them. Choose fewer unseen classes, or "
                "set drop_unseen_images."
            )
