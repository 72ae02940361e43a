"""The types of what the parts of the package share: class splits, features and label values."""

from .class_split import (
    IGNORED,
    MAX_CLASSES,
    UNLABELED,
    ClassSplit,
    SplitLike,
    ignored_label,
    unlabeled_label,
)
from .features import AlignedFeatures, CLIPFeatures

__all__ = [
    "IGNORED",
    "MAX_CLASSES",
    "UNLABELED",
    "AlignedFeatures",
    "CLIPFeatures",
    "ClassSplit",
    "SplitLike",
    "ignored_label",
    "unlabeled_label",
]
