"""Checks class names: as text, as CLIP understands them, and against labeled image regions."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from mmcv import imresize
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from mmseg_otseg.checks.labels import Finding, error, note, warning
from mmseg_otseg.models import TemplatePrompts
from mmseg_otseg.models.clip import load_clip
from mmseg_otseg.structures import ClassSplit

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
SAME = 0.999  # cosine from which two names are one to CLIP


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
    (
        lambda name: "," in name,
        note,
        "has a comma, which separates names in tools/segment.py --classes: put it in double quotes "
        "there.",
    ),
)


class Reading(NamedTuple):
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


class NameReader:
    """A CLIP that encodes names and image regions.

    Args:
        clip: ``dict(model=..., pretrained=...)``, see :func:`~mmseg_otseg.models.clip.load_clip`.
        templates: Prompt templates for the names.
        mean: Mean of the images, RGB, 0..255.
        std: Standard deviation of the images, RGB, 0..255.
    """

    def __init__(
        self,
        clip: Mapping[str, Any],
        templates: str | Sequence[str] = "otseg6",
        mean: Sequence[float] = (123.675, 116.28, 103.53),
        std: Sequence[float] = (58.395, 57.12, 57.375),
    ) -> None:
        self.clip, self.templates = dict(clip), templates
        self.trained = clip.get("pretrained") is not None  # random weights know no language
        self.mean, self.std = torch.tensor(mean), torch.tensor(std)

    def read(self, names: Sequence[str]) -> Reading:
        """Find the nearest other name of each class name, and names that are too similar.

        Args:
            names: The class names; those of one class may be written ``"sofa | couch"``.
        """
        prompts = TemplatePrompts(self.clip, {"classes": names}, self.templates, average=True)
        split, embeddings = prompts.split, prompts()[:, 0]
        names = split.classes
        findings = list(_same_names(split, embeddings)) if self.trained else []
        embeddings = embeddings[[split.texts.index(name) for name in names]]
        if len(names) == 1:
            return Reading([0], [1.0], embeddings, findings)
        cosine, nearest = (embeddings @ embeddings.T).fill_diagonal_(-1).max(1)
        near, usual = 1 - cosine, (1 - cosine).median()
        close = (near <= NEAR * usual) & (cosine > NEAR_COSINE) & (cosine <= SAME) & self.trained
        pairs = {tuple(sorted((i, int(nearest[i])))) for i in torch.nonzero(close)[:, 0].tolist()}
        for first, second in sorted(pairs):
            findings.append(
                warning(
                    f"{names[first]!r} and {names[second]!r} mean nearly the same to CLIP (cosine "
                    f"{cosine[first]:.3f}; {1 - usual:.3f} is usual in this list). Choose words "
                    "that describe a visible difference."
                )
            )
        return Reading(nearest.tolist(), cosine.tolist(), embeddings, findings)

    @torch.no_grad()
    def names_of_regions(
        self, crops: Mapping[int, Sequence[np.ndarray]], names: Sequence[str], embeddings: Tensor
    ) -> list[Finding]:
        """Check whether the names fit the regions with their labels better than other orders.

        Args:
            crops: For each class index, some images of its regions, (h, w, 3), RGB, uint8.
            names: The class names.
            embeddings: Their unit-length text embeddings, (K, D).
        """
        shown = sorted(index for index, found in crops.items() if found)
        if len(shown) < 3:
            return []
        clip, rows = load_clip(**self.clip), []
        size = clip.visual.image_size
        height, width = size if isinstance(size, tuple) else (size, size)
        for index in shown:
            images = torch.from_numpy(
                np.stack([imresize(crop, (width, height)) for crop in crops[index]])
            )
            inputs = ((images - self.mean) / self.std).permute(0, 3, 1, 2)
            rows.append(F.normalize(clip.encode_image(inputs), dim=-1).mean(0) @ embeddings.T)
        return list(order_findings(torch.stack(rows).numpy(), shown, names))


def _same_names(split: ClassSplit, embeddings: Tensor) -> Iterator[Finding]:
    """Names of different classes that CLIP cannot tell apart, by their unit embeddings (Q, D)."""
    owners = torch.tensor([index for index, own in enumerate(split.names) for _ in own])
    same = (embeddings @ embeddings.T > SAME) & (owners[:, None] != owners)
    texts, found = split.texts, int(same.any(1).sum())
    if found:
        pairs = torch.nonzero(same.triu())[:MAX_NAMES_LISTED].tolist()
        listed = ", ".join(f"{texts[one]!r} and {texts[other]!r}" for one, other in pairs)
        yield warning(
            f"this CLIP cannot tell names of different classes apart ({found} of {len(texts)} "
            f"names): {listed}. Use another CLIP, or other words."
        )


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
        yield error(_another_order(given, best, names))
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


def _another_order(given: np.ndarray, best: np.ndarray, names: Sequence[str]) -> str:
    """The message that names the best order of the names, and what it is if it follows a rule.

    For each label value that occurs, ``best`` is the index of the name that fits, shape (S,) both.
    """
    number = len(names)
    shifts = (best - given) % number
    what = "in another order than the labels"
    if (shifts == shifts[0]).all():
        shift = int(min(shifts[0], number - shifts[0]))
        direction = "later" if shift == shifts[0] else "earlier"
        what = (
            f"shifted: the names fit better {shift} place{'s' * (shift > 1)} {direction} in the "
            "list"
        )
    elif (best == number - 1 - given).all():
        what = "in reverse"
    likely = [f"{label} {names[name]}" for label, name in zip(given, best)]
    listed = ", ".join(likely[:MAX_NAMES_LISTED]) + (", ..." * (len(likely) > MAX_NAMES_LISTED))
    return (
        f"the list of names looks {what}. By CLIP, the label values are {listed}. Check that each "
        "name is at the position of its label value; see the sheet."
    )
