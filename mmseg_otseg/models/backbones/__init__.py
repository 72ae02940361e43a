"""Image towers."""

from .clip_backbone import CLIPBackbone
from .visual_prompts import DeepVisualPrompts

__all__ = ["CLIPBackbone", "DeepVisualPrompts"]
