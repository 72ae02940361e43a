"""Image towers behind one interface."""

from typing import Any

from open_clip.timm_model import TimmModel
from timm.models import ConvNeXt, FastVit

from .base import ImageTower
from .convnext import ConvNeXtTower
from .fastvit import FastViTTower
from .plain import PlainViT
from .timm_vit import TimmViT

__all__ = ["ImageTower", "image_tower"]


def image_tower(visual: Any) -> ImageTower:
    """The interface to an image tower of open_clip that ``check_image_tower`` lets pass."""
    if not isinstance(visual, TimmModel):
        return PlainViT(visual)
    for kind, tower in ((ConvNeXt, ConvNeXtTower), (FastVit, FastViTTower)):
        if isinstance(visual.trunk, kind):
            return tower(visual)
    return TimmViT(visual)
