"""Datasets with seen and unseen classes, and reproducible sampling."""

from .folder_dataset import FolderDataset
from .samplers import ReproducibleInfiniteSampler
from .shapes import LoadShapesScene, ShapesDataset
from .zero_shot_dataset import PascalVOC20Dataset, ZeroShotDataset

__all__ = [
    "FolderDataset",
    "LoadShapesScene",
    "PascalVOC20Dataset",
    "ReproducibleInfiniteSampler",
    "ShapesDataset",
    "ZeroShotDataset",
]
