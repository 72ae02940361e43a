"""Changing what a model can name."""

from __future__ import annotations

import colorsys
from collections.abc import Mapping, Sequence
from typing import Any

from mmengine.model import is_model_wrapper
from torch import nn

from mmseg_otseg.models.text.prompts import SplitLike

GOLDEN_RATIO = 0.618034


def set_classes(model: nn.Module, classes: Sequence[str] | SplitLike) -> None:
    """Give a model another vocabulary, at any time and without training.

    The logits of a class do not depend on the other classes. When class names are given, those that
    training saw labels of remain the seen ones, to which the head's ``seen_bias`` applies.

    Args:
        model: A segmentor with a :class:`~mmseg_otseg.models.DLFANeck`.
        classes: Class names, any number from one on; or a split with its own seen and unseen
            classes, see :class:`~mmseg_otseg.structures.ClassSplit`.

    Raises:
        TypeError: If the model has no vocabulary to change.
        ValueError: For no name, a name given twice or empty, or a split that makes no sense.
    """
    segmentor: Any = model.module if is_model_wrapper(model) else model
    neck: Any = getattr(segmentor, "neck", None)
    if not hasattr(neck, "set_classes"):
        raise TypeError(
            f"this {type(segmentor).__name__} has no neck with a vocabulary (DLFANeck), so "
            "its classes cannot be changed"
        )
    if isinstance(classes, Sequence) and not isinstance(classes, str):
        blank = [name for name in classes if not str(name).strip()]
        if blank:
            raise ValueError("a class name is empty; give every class a name")
    neck.set_classes(classes)
    names = neck.text.split.classes
    head = segmentor.decode_head
    for part in (head, segmentor):
        part.num_classes = part.out_channels = len(names)
    segmentor.dataset_meta = {
        "classes": names,
        "palette": palette_for(names, getattr(segmentor, "dataset_meta", None)),
    }


def palette_for(names: Sequence[str], known: Mapping[str, Any] | None = None) -> list[list[int]]:
    """A colour for each class.

    Args:
        names: Class names.
        known: ``classes`` and ``palette`` of a data set; its classes keep their colours.

    Returns:
        RGB values in 0..255; hues as far apart as possible where the colour is not known.
    """
    known = known or {}
    colours = dict(zip(known.get("classes") or (), known.get("palette") or ()))
    palette = []
    for index, name in enumerate(names):
        hue, dim = (index * GOLDEN_RATIO) % 1, 0.15 * (index % 3)
        colour = colours.get(name)
        if colour is None:
            colour = [255 * part for part in colorsys.hsv_to_rgb(hue, 0.85 - dim, 1 - dim)]
        palette.append([round(float(part)) for part in colour])
    return palette
