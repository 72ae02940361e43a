"""What the parts of the package pass to each other."""

from .class_split import ClassSplit, SplitLike
from .features import AlignedFeatures, CLIPFeatures
from .labels import IGNORED, UNLABELED

__all__ = ["IGNORED", "UNLABELED", "AlignedFeatures", "CLIPFeatures", "ClassSplit", "SplitLike"]
