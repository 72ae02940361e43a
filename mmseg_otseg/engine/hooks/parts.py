"""The parts of a model that hooks look at."""

from __future__ import annotations

from typing import Any

from mmseg_otseg.structures import ClassSplit


def segmentor(model: Any) -> Any:
    """The segmentor inside the wrappers for several processes and for test-time augmentation."""
    while hasattr(model, "module"):
        model = model.module
    return model


def neck(model: Any) -> Any:
    """The neck of a model; None if it has none."""
    return getattr(segmentor(model), "neck", None)


def class_split(model: Any) -> ClassSplit | None:
    """The class split of a model's text prompts; None if it has no text prompts."""
    split = getattr(getattr(neck(model), "text", None), "split", None)
    return split if isinstance(split, ClassSplit) else None
