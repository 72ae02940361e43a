"""The built-in shapes benchmark: procedural scenes, captions and worlds."""

from .captions import NUM_FACTS, VOCABULARY, Caption, caption_scene, scene_facts
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
    "NUM_FACTS",
    "SHAPES_CLASSES",
    "SHAPES_PALETTE",
    "SHAPES_UNSEEN",
    "SHAPES_UNSEEN_INDICES",
    "SUBSETS",
    "VOCABULARY",
    "WORLDS",
    "Caption",
    "LoadShapesScene",
    "Scene",
    "SceneObject",
    "ShapesDataset",
    "World",
    "caption_scene",
    "export_voc",
    "get_world",
    "render_scene",
    "scene_facts",
]
