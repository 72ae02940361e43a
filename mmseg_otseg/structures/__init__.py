"""The types of what the parts of the package share: class splits, features and label values."""

from .class_split import ClassSplit, SplitLike
from .features import AlignedFeatures, CLIPFeatures
from .labels import IGNORED, MAX_CLASSES, UNLABELED, ignored_label, unlabeled_label

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
