"""The built-in shapes benchmark: procedural scenes of colored shapes."""

from .dataset import LoadShapesScene, ShapesDataset, export_voc
from .scenes import (
    BACKGROUND,
    SHAPES_CLASSES,
    SHAPES_PALETTE,
    SHAPES_UNSEEN,
    SHAPES_UNSEEN_INDICES,
    Composition,
    Scene,
    SceneObject,
    render_scene,
)

__all__ = [
    "BACKGROUND",
    "SHAPES_CLASSES",
    "SHAPES_PALETTE",
    "SHAPES_UNSEEN",
    "SHAPES_UNSEEN_INDICES",
    "Composition",
    "LoadShapesScene",
    "Scene",
    "SceneObject",
    "ShapesDataset",
    "export_voc",
    "render_scene",
]
