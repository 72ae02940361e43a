"""Image towers behind one interface."""

from typing import Any

from open_clip.timm_model import TimmModel
from timm.models import ConvNeXt, FastVit

from .base import POSITION_INTERPOLATIONS, ImageTower, resize_positions
from .feature_map import ConvNeXtTower, FastViTTower
from .vit import PlainViT, TimmViT

__all__ = ["POSITION_INTERPOLATIONS", "ImageTower", "image_tower", "resize_positions"]


def image_tower(visual: Any) -> ImageTower:
    """The interface to an image tower of open_clip that ``check_image_tower`` lets pass."""
    if not isinstance(visual, TimmModel):
        return PlainViT(visual)
    for kind, tower in ((ConvNeXt, ConvNeXtTower), (FastVit, FastViTTower)):
        if isinstance(visual.trunk, kind):
            return tower(visual)
    return TimmViT(visual)
