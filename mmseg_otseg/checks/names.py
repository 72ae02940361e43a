"""Checks class names: as text, as CLIP understands them, and against labeled image regions."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from mmseg_otseg.checks.labels import Finding, error, note, warning
from mmseg_otseg.errors import listed
from mmseg_otseg.inference.segmenter import SAME_COSINE, same_embedding_warning
from mmseg_otseg.models import TemplatePrompts
from mmseg_otseg.models.clip import load_clip

NOT_THINGS = frozenset(
    (
        *("background", "bg", "void", "unlabeled", "unlabelled", "ignore", "ignored", "other"),
        *("others", "none", "unknown", "misc", "null", "undefined"),
    )
)
# Limits on the distance to the nearest name, relative to the median in the list, and on the cosine.
NEAR, NEAR_COSINE = 0.3, 0.9
MIN_SIGNAL = 4.0  # standard deviations of noise by which the best order of names must fit better
MIN_LOSS = 0.3  # of the best order's fit, which another order must lack to be an error
NOISE_DRAWS = 200
MIN_SWAP_GAIN = 2.0  # standard deviations of the similarities
MAX_NAMES_LISTED = 30


def name_findings(names: Sequence[str]) -> Iterator[Finding]:
    """Names that CLIP cannot understand or that are hard to distinguish or to type."""
    groups: dict[str, list[str]] = defaultdict(list)
    for name in names:
        groups[_plain(name)].append(name)
    for group in groups.values():
        if len(group) > 1:
            yield warning(
                f"the names {', '.join(group)} are nearly the same, so the model cannot tell them "
                "apart. Merge them into one class, or name the difference."
            )
    for test, level, text in _TESTS:
        found = [name for name in names if test(name)]
        if found:
            yield level(f"{', '.join(map(repr, found))}: {text}")


def _plain(name: str) -> str:
    """A name in lower-case words without separators and plural endings."""
    words = re.findall(r"[^\W_]+", _split_case(name).casefold())
    return " ".join(_singular(word) for word in words)


def _split_case(name: str) -> str:
    return re.sub(r"(?<=[a-z])(?=[A-Z])", " ", name)


def _singular(word: str) -> str:
    if len(word) < 4 or not word.endswith("s") or word.endswith(("ss", "us", "is", "as")):
        return word
    return re.sub(r"(?<=s|x)es$|(?<=ch|sh)es$|s$", "", re.sub("ies$", "ys", word))


def _is_plural(name: str) -> bool:
    last = name.split(" ")[-1].casefold()
    return _singular(last) != last and not _is_no_thing(name)


def _is_no_thing(name: str) -> bool:
    return name.casefold().strip(" _") in NOT_THINGS


_TESTS = (
    (
        _is_no_thing,
        warning,
        "not a thing that text can describe. Remove it from `classes` and set `background` to its "
        "label value; pixels of no class are then ignored, and at test time the "
        'option --none-below of tools/segment.py gives "none of these".',
    ),
    (
        lambda name: (
            not re.search(r"[^\W\d_]{2}", name)
            or re.fullmatch(r"(?i)(class|label|c|id)[ _-]*\d+", name)
        ),
        warning,
        "means nothing to CLIP. Write an English word for what is in the image.",
    ),
    (
        lambda name: "_" in name or _split_case(name) != name,
        warning,
        "written as in a program. CLIP reads text: separate the words with spaces.",
    ),
    (
        lambda name: name != name.lower() and _split_case(name) == name,
        warning,
        "has capital letters. CLIP reads lower case, and a name typed later counts as the same "
        "class (seen, and with its bias) only if it is spelled the same: use lower case.",
    ),
    (
        lambda name: "  " in name,
        warning,
        "has extra spaces. Remove them.",
    ),
    (
        lambda name: not name.isascii(),
        warning,
        "not in English letters. CLIP was trained on English text: use English names.",
    ),
    (
        _is_plural,
        note,
        'looks like a plural. The prompts say "a photo of a ...": use the singular if '
        "there is one.",
    ),
)


class NameComparison(NamedTuple):
    """How CLIP understands the names.

    Attributes:
        nearest: For each class, the index of the class with the nearest text, (K,).
        cosine: Their cosine similarity, (K,).
        embeddings: Unit-length text embeddings of the first names, the mean over the templates,
            (K, D).
        findings: What is wrong with them.
    """

    nearest: list[int]
    cosine: list[float]
    embeddings: Tensor
    findings: list[Finding]


def compare_names(
    clip: Mapping[str, Any], names: Sequence[str], templates: str | Sequence[str] = "otseg6"
) -> NameComparison:
    """Find the nearest other name of each class name, and names that are too similar.

    Args:
        clip: ``dict(model=..., pretrained=...)``, see :func:`~mmseg_otseg.models.clip.load_clip`.
            With random weights, which know no language, no names are too similar.
        names: The class names; those of one class may be written ``"sofa | couch"``.
        templates: Prompt templates for the names.
    """
    prompts = TemplatePrompts(clip, {"classes": names}, templates, average=True)
    split, embeddings = prompts.split, prompts()[:, 0]
    trained, findings = clip.get("pretrained") is not None, []
    if trained and (alike := same_embedding_warning(split.texts, embeddings[:, None].numpy())):
        findings.append(warning(alike))
    names = split.classes
    embeddings = embeddings[[split.texts.index(name) for name in names]]
    if len(names) == 1:
        return NameComparison([0], [1.0], embeddings, findings)
    cosine, nearest = (embeddings @ embeddings.T).fill_diagonal_(-1).max(1)
    near, usual = 1 - cosine, (1 - cosine).median()
    close = (near <= NEAR * usual) & (cosine > NEAR_COSINE) & (cosine <= SAME_COSINE) & trained
    pairs = {tuple(sorted((i, int(nearest[i])))) for i in torch.nonzero(close)[:, 0].tolist()}
    for first, second in sorted(pairs):
        findings.append(
            warning(
                f"{names[first]!r} and {names[second]!r} mean nearly the same to CLIP (cosine "
                f"{cosine[first]:.3f}; {1 - usual:.3f} is usual in this list). Choose words "
                "that describe a visible difference."
            )
        )
    return NameComparison(nearest.tolist(), cosine.tolist(), embeddings, findings)


@torch.no_grad()
def region_findings(
    clip: Mapping[str, Any],
    preprocessor: Any,
    crops: Mapping[int, Sequence[Tensor]],
    names: Sequence[str],
    embeddings: Tensor,
) -> list[Finding]:
    """Check whether the names fit the regions with their labels better than other orders.

    Args:
        clip: As for :func:`compare_names`.
        preprocessor: The data preprocessor; its output goes into CLIP.
        crops: For each class index, some images of its regions, (3, h, w), BGR.
        names: The class names.
        embeddings: Their unit-length text embeddings, (K, D).
    """
    shown = sorted(index for index, found in crops.items() if found)
    if len(shown) < 3:
        return []
    model, rows = load_clip(**clip), []
    for index in shown:
        size = model.visual.image_size
        images = [F.interpolate(crop[None].float(), size, mode="bilinear") for crop in crops[index]]
        inputs = preprocessor({"inputs": [*torch.cat(images)], "data_samples": None})["inputs"]
        encoded = model.encode_image(torch.stack([*inputs]))
        rows.append(F.normalize(encoded, dim=-1).mean(0) @ embeddings.T)
    return list(order_findings(torch.stack(rows).numpy(), shown, names))


def order_findings(
    fit: np.ndarray, shown: Sequence[int], names: Sequence[str]
) -> Iterator[Finding]:
    """Find out whether another order of the names fits the labels clearly better.

    The best order is the assignment of names to labels with the largest mean similarity. It counts
    only if CLIP knows the images: its mean must exceed, by four standard deviations, the best means
    of random mixtures of the rows, which keep how names resemble each other and lose which region
    is which. It is an error if the given order then lacks 30 % of that mean; two names that are
    exchanged are a warning.

    Args:
        fit: Similarity of the regions of each shown class to every name, (S, K).
        shown: The class indices of the rows, in increasing order.
        names: The K class names.
    """
    fit = fit - fit.mean(0)  # some names are close to every image
    given = np.array(shown)
    rows, best = linear_sum_assignment(fit, maximize=True)
    score = fit[rows, best].mean()
    random, noise = np.random.default_rng(0), []
    for _ in range(NOISE_DRAWS):
        mixed = random.standard_normal((len(rows), len(rows))) @ fit
        mixed -= mixed.mean(0)
        mixed *= np.linalg.norm(fit) / np.linalg.norm(mixed)
        noise.append(mixed[linear_sum_assignment(mixed, maximize=True)].mean())
    loss = score - fit[rows, given].mean()
    moved = np.flatnonzero(best != given)
    if (
        len(moved) > 2
        and loss > MIN_LOSS * score
        and score - np.mean(noise) > MIN_SIGNAL * np.std(noise)
    ):
        likely = listed([f"{label} {names[n]}" for label, n in zip(given, best)], MAX_NAMES_LISTED)
        yield error(
            "the names seem to be in a different order from the labels. By CLIP, the label values "
            f"are {likely}. Check that each name is at the position of its label value; see the "
            "sheet."
        )
        return
    for row in moved.tolist():
        later = int(np.searchsorted(given, best[row]))
        if later <= row or later == len(given) or given[later] != best[row]:
            continue
        first, second = int(given[row]), int(best[row])
        gain = fit[row, second] + fit[later, first] - fit[row, first] - fit[later, second]
        mutual = fit[row].argmax() == second and fit[later].argmax() == first
        if mutual and gain > MIN_SWAP_GAIN * fit.std():
            yield warning(
                f"{names[first]!r} and {names[second]!r} look swapped: CLIP finds each where the "
                "other is labeled. Check the order of `classes`; see the sheet."
            )
