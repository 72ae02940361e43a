"""The types of what the parts of the package share: class splits, features and label values."""

from .class_split import IGNORED, UNLABELED, ClassSplit, SplitLike
from .features import AlignedFeatures, CLIPFeatures

__all__ = ["IGNORED", "UNLABELED", "AlignedFeatures", "CLIPFeatures", "ClassSplit", "SplitLike"]
