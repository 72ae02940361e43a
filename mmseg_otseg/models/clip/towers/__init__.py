"""Image towers behind one interface."""

from typing import Any

from .base import ImageTower
from .plain import PlainViT

__all__ = ["ImageTower", "image_tower"]


def image_tower(visual: Any) -> ImageTower:
    """The interface to an image tower of open_clip that ``check_image_tower`` lets pass."""
    return PlainViT(visual)
