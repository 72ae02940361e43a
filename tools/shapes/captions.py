"""Captions of shapes scenes. They describe the whole image and say nothing about locations.

A caption and an image each correspond to a set of facts. A caption is true of an image if its facts
are a subset of the image's facts. There are five possible facts for each of the 20 classes: it
occurs; it occurs in small, medium or large size; it occurs partly hidden (as in "a part of a red
circle").
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from mmseg_otseg.datasets.shapes import SHAPES_CLASSES, Scene, SceneObject

SIZES = ("small", "medium", "large")
NUM_FACTS = len(SHAPES_CLASSES) * (2 + len(SIZES))
"""Index c: class c occurs; 20 * (1 + s) + c: it occurs in size s; 80 + c: it is partly hidden."""

_WHOLE = ("a photo of {}.", "a picture of {}.", "an image of {}.", "a portrait of {}.", "{}.", "{}")
_PART = ("a part of a {}.", "a segment of a {}.", "a background of a {}.")
_MEDIUM_FROM, _LARGE_FROM = 0.16, 0.22  # radii, fractions of the shorter image side

VOCABULARY: tuple[str, ...] = (
    *sorted({word for name in SHAPES_CLASSES for word in name.split()}),
    *SIZES,
    *("a", "an", "and", "background", "image", "of", "part", "photo", "picture", "portrait"),
    *("segment", ",", "."),
)
"""All words and punctuation marks in captions. Each is a single token for CLIP's tokenizer."""


class Caption(NamedTuple):
    """A sentence and (NUM_FACTS,) bool, the facts that must all hold for it to be true."""

    text: str
    facts: np.ndarray


def _named(scene: Scene) -> list[SceneObject]:
    """The objects visible enough to be named, in painting order."""
    least = 0.004 * scene.labels.size
    return [o for o in scene.objects if o.visible >= 0.3 and o.pixels >= least]


def _size(thing: SceneObject) -> int:
    """Index into ``SIZES``."""
    return int(thing.radius >= _MEDIUM_FROM) + int(thing.radius >= _LARGE_FROM)


def scene_facts(scene: Scene) -> np.ndarray:
    """The facts that are true of a scene, (NUM_FACTS,) bool.

    Objects that are mostly covered or tiny do not count.
    """
    facts = np.zeros((2 + len(SIZES), len(SHAPES_CLASSES)), bool)
    for thing in _named(scene):
        facts[0, thing.label] = True
        facts[1 + _size(thing), thing.label] = True
        if thing.visible < 0.75:
            facts[1 + len(SIZES), thing.label] = True
    return facts.ravel()


def caption_scene(scene: Scene, seed: int = 0) -> Caption:
    """Describe a scene in one random sentence.

    If a class occurs partly hidden, one sentence in eight names a part of it. The other sentences
    name one to four of the classes that occur, each with a size in one case out of four.

    Args:
        scene: The scene.
        seed: Random seed of the wording.

    Returns:
        A caption that is true of the scene. For a scene without objects to name, it is
        "a background." and has no facts.
    """
    draws = iter(np.random.Generator(np.random.PCG64(seed)).random(32).tolist())
    facts = np.zeros((2 + len(SIZES), len(SHAPES_CLASSES)), bool)
    things = _named(scene)
    if not things:
        return Caption("a background.", facts.ravel())

    hidden = [o for o in things if o.visible < 0.75]
    if next(draws) < 0.125 and hidden:
        label = hidden[int(next(draws) * len(hidden))].label
        facts[0, label] = facts[1 + len(SIZES), label] = True
        text = _PART[int(next(draws) * len(_PART))].format(SHAPES_CLASSES[label])
        return Caption(text, facts.ravel())

    by_label = {o.label: o for o in things}  # name each class once
    order = sorted(by_label, key=lambda _: next(draws))[:4]
    if next(draws) < 0.3:  # sometimes leave out some classes
        order = order[: 1 + int(next(draws) * len(order))]
    phrases = []
    for label in order:
        words = [SHAPES_CLASSES[label]]
        facts[0, label] = True
        if next(draws) < 0.25:
            size = _size(by_label[label])
            facts[1 + size, label] = True
            words.insert(0, SIZES[size])
        if next(draws) < 0.75:
            words.insert(0, "a")
        phrases.append(" ".join(words))
    listing = " and ".join(filter(None, [", ".join(phrases[:-1]), phrases[-1]]))
    text = _WHOLE[int(next(draws) * len(_WHOLE))].format(listing)
    return Caption(text, facts.ravel())
