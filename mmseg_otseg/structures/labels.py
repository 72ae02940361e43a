"""Label values that stand for no class. Class labels are 0..K-1."""

from __future__ import annotations

IGNORED = 255
"""Left out of the loss and of the metric, mmseg's ``ignore_index``."""

UNLABELED = 254
"""A pixel of some unseen class, nobody knows which (transductive training)."""
