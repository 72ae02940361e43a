"""The built-in shapes benchmark: procedural scenes in several worlds."""

from .dataset import LoadShapesScene, ShapesDataset, export_voc
from .scenes import BACKGROUND, SUBSETS, Scene, SceneObject, render_scene
from .worlds import (
    SHAPES_CLASSES,
    SHAPES_PALETTE,
    SHAPES_UNSEEN,
    SHAPES_UNSEEN_INDICES,
    WORLDS,
    World,
    get_world,
)

__all__ = [
    "BACKGROUND",
    "SHAPES_CLASSES",
    "SHAPES_PALETTE",
    "SHAPES_UNSEEN",
    "SHAPES_UNSEEN_INDICES",
    "SUBSETS",
    "WORLDS",
    "LoadShapesScene",
    "Scene",
    "SceneObject",
    "ShapesDataset",
    "World",
    "export_voc",
    "get_world",
    "render_scene",
]
