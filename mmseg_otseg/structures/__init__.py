"""The types of what the parts of the package share: class splits, features and label values."""

from .class_split import ClassSplit, SplitLike
from .features import AlignedFeatures, CLIPFeatures
from .labels import IGNORED, UNLABELED

__all__ = ["IGNORED", "UNLABELED", "AlignedFeatures", "CLIPFeatures", "ClassSplit", "SplitLike"]
