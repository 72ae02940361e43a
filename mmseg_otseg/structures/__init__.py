"""What the parts of the package pass to each other."""

from .class_split import ClassSplit, SplitLike
from .features import AlignedFeatures, CLIPFeatures
from .labels import IGNORED, UNLABELLED

__all__ = ["IGNORED", "UNLABELLED", "AlignedFeatures", "CLIPFeatures", "ClassSplit", "SplitLike"]
