"""Reports samples that cannot be used, and the likely reason."""

from __future__ import annotations

from collections.abc import Sequence

from mmseg_otseg.checks.finding import Finding, error
from mmseg_otseg.checks.reading import Sample, first_of, named
from mmseg_otseg.structures import IGNORED, ClassSplit

SHOWN = 5


def problem_findings(
    subset: str, samples: Sequence[Sample], split: ClassSplit, background: int | None
) -> list[Finding]:
    """Samples that cannot be used, one finding for each kind of reason.

    Args:
        subset: ``"train"`` or ``"val"``, for the messages.
        samples: All samples of that subset.
        split: The class split.
        background: The label value that is not a class, if there is one.
    """
    bad = [sample for sample in samples if sample.problem]
    color = [s for s in bad if s.mode in ("RGB", "RGBA", "LA", "CMYK", "YCbCr")]
    jpeg = [s for s in bad if s.mode == "JPEG"]
    values = [s for s in bad if s.values and s.mode != "JPEG" and _wrong(s, split, background)]
    findings = []
    if color:
        swapped = [s for s in color if s.image_is_label]
        findings.append(
            error(
                f"{subset}: {named(color)} {_have(color)} colors, not one class index per "
                "pixel. "
                + (
                    "The images look like label maps: `images` and `labels` are swapped."
                    if swapped
                    else "Convert them to single-channel PNGs with the index of the class."
                )
            )
        )
    if jpeg:
        findings.append(
            error(
                f"{subset}: {named(jpeg)} {_have(jpeg)} been saved as JPEG, which changes the "
                "values along all edges. Create them again as PNG."
            )
        )
    if values:
        findings.append(_value_finding(subset, values, samples, split, background))
    known = {id(sample) for sample in (*color, *jpeg, *values)}
    rest = [sample for sample in bad if id(sample) not in known]
    if rest:
        more = f" {len(rest) - SHOWN} more samples cannot be used." if len(rest) > SHOWN else ""
        reasons = " ".join(sample.problem for sample in rest[:SHOWN])
        findings.append(error(f"{subset}: {reasons}{more}"))
    return findings


def _allowed(split: ClassSplit, background: int | None) -> set[int]:
    """The values allowed in a label file."""
    above = background is not None and background <= split.num_classes
    values = set(range(split.num_classes + above)) | {IGNORED}
    return values | {background} if background is not None else values


def _wrong(sample: Sample, split: ClassSplit, background: int | None) -> list[int]:
    allowed = _allowed(split, background)
    return [value for value in sample.values if value not in allowed]


def _value_finding(
    subset: str,
    bad: Sequence[Sample],
    samples: Sequence[Sample],
    split: ClassSplit,
    background: int | None,
) -> Finding:
    """The values that occur but are not allowed, and the likely reason."""
    wrong = sorted({value for sample in bad for value in _wrong(sample, split, background)})
    number = split.num_classes
    zero = any(s.pixels[0] or 0 in s.values for s in samples)
    if wrong[-1] > 255 or wrong[0] < 0:
        hint = (
            "Labels are 8-bit class indices. If these are instance numbers or codes (such as 1000 "
            "times the class), replace them with class indices."
        )
    elif background is None and wrong == [number] and not zero:
        hint = (
            "0 never occurs: the labels start at 1. Set background=0; then the first name belongs "
            "to the value 1."
        )
    elif background is None and wrong == [number]:
        hint = (
            "If 0 is the background, set background=0; then the first name belongs to the value "
            f"1. If {number} is, set background={number}. Otherwise `classes` lacks a name."
        )
    elif len(wrong) > max(10, number):
        hint = (
            "So many values cannot be class indices: these are gray images, or label maps that "
            "were resized or compressed. Create them again, resize with nearest neighbor, and save "
            "as PNG."
        )
    elif len(wrong) == 1 and background is None:
        hint = (
            f"If {wrong[0]} marks pixels without a class, set background={wrong[0]}. Otherwise "
            f"`classes` needs {wrong[0] + 1} names."
        )
    else:
        hint = (
            f"The class list has {number} names"
            + (f" and background={background}" if background is not None else "")
            + ". Give every value a name, in the order of the values, or write 255 for pixels "
            "without a class."
        )
    return error(
        f"{subset}: {named(bad)} {_have(bad)} the values {first_of(wrong)}, which are not "
        f"classes. {hint}"
    )


def _have(samples: Sequence[Sample]) -> str:
    return "has" if len(samples) == 1 else "have"
