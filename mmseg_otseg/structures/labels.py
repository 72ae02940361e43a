"""The values of label maps that are no classes."""

from __future__ import annotations

IGNORED = 255
"""Label of a pixel of no class, mmseg's ``ignore_index``; see :func:`ignored_label`.

The metrics leave it out. :class:`~mmseg_otseg.models.FocalDiceLoss` by default counts it as a
negative for every class, as the authors do; ``ignored="masked"`` leaves it out there as well.
"""

UNLABELED = 254
"""Label of a pixel of some unseen class (transductive training); see :func:`unlabeled_label`."""

MAX_CLASSES = 65535
"""Values of a file with 16 bits, of which one is for ignored pixels."""


def ignored_label(count: int) -> int:
    """The label of ignored pixels beside ``count`` others: 255; 65535 if 8 bits are too few."""
    return IGNORED if count <= UNLABELED else MAX_CLASSES


def unlabeled_label(count: int) -> int:
    """The label of pixels of some unseen class, beside ``count`` classes: 254, or 65536."""
    return UNLABELED if count <= UNLABELED else MAX_CLASSES + 1
