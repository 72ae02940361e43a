"""Changes the classes of a model."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any, TypeVar

from mmengine.model import is_model_wrapper
from torch import nn

from mmseg_otseg.errors import UserError
from mmseg_otseg.imaging import palette_for
from mmseg_otseg.structures import SplitLike

Part = TypeVar("Part", bound=nn.Module)


def set_classes(model: nn.Module, classes: Sequence[str] | SplitLike) -> None:
    """Give a model another vocabulary, at any time and without training.

    The logits of a class do not depend on the other classes. If class names are given, those with
    labels in training remain the seen classes, to which the head's ``seen_bias`` applies. If the
    names are refused, the model does not change.

    Args:
        model: A segmentor with a :class:`~mmseg_otseg.models.DLFANeck`.
        classes: One or more class names, such as ``"sofa"`` or, for a class with several names,
            ``"sofa | couch"``; or a split with its own seen and unseen classes, see
            :class:`~mmseg_otseg.structures.ClassSplit`.

    Raises:
        UserError: If the model has no vocabulary to change, there are no names, a name is empty or
            repeated, or the split is invalid.
    """
    segmentor = _segmentor(model)
    changed = copy_with_classes(model, classes)
    # Replace the neck in one step: a copy made meanwhile has either the old or the new vocabulary.
    segmentor.neck = changed.neck
    for part, new in ((segmentor.decode_head, changed.decode_head), (segmentor, changed)):
        part.num_classes, part.out_channels = new.num_classes, new.out_channels
    segmentor.dataset_meta = changed.dataset_meta


def copy_with_classes(model: nn.Module, classes: Sequence[str] | SplitLike | None = None) -> Any:
    """The same model with the same weights but with its own vocabulary.

    Changing the vocabulary of one of the two models does not affect the other.

    Args:
        model: As in :func:`set_classes`.
        classes: As in :func:`set_classes`; None means the model's current vocabulary.

    Raises:
        UserError: As in :func:`set_classes`.
    """
    segmentor = _segmentor(model)
    if not hasattr(getattr(segmentor, "neck", None), "set_classes"):
        raise UserError(
            f"this {type(segmentor).__name__} has no neck with a vocabulary (DLFANeck), so "
            "its classes cannot be changed"
        )
    other = _shallow_copy(segmentor)
    other.neck, other.decode_head = (
        _shallow_copy(segmentor.neck),
        _shallow_copy(segmentor.decode_head),
    )
    if classes is not None:
        other.neck.text = _shallow_copy(other.neck.text)
        other.neck.set_classes(classes)
    split = other.neck.text.split
    for part in (other.decode_head, other):
        part.num_classes, part.out_channels = split.num_classes, len(split.texts)
    known = getattr(segmentor, "dataset_meta", None)
    palette = palette_for(split.classes, known)
    other.dataset_meta = {"classes": split.classes, "palette": palette}
    return other


def _segmentor(model: Any) -> Any:
    return model.module if is_model_wrapper(model) else model


def _shallow_copy(module: Part) -> Part:
    """A copy of a module that shares its tensors and parts; parts can be replaced in the copy."""
    shell = copy.copy(module)
    for name in ("_parameters", "_buffers", "_modules"):
        shell.__dict__[name] = dict(module.__dict__[name])
    return shell
