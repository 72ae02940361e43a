"""Label values that stand for no class. Class labels are 0..K-1."""

from __future__ import annotations

IGNORED = 255
"""A pixel of no class, mmseg's ``ignore_index``.

The metrics leave it out. :class:`~mmseg_otseg.models.FocalDiceLoss` by default counts it as a
negative for every class, as the authors do; ``ignored="masked"`` leaves it out there as well.
"""

UNLABELED = 254
"""A pixel of an unseen class, without the information which one (transductive training)."""
