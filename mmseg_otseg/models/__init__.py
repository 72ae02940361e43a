"""Registered components: backbone, neck, head, text prompts, loss."""

from .backbones import CLIPBackbone
from .clip import load_clip
from .decode_heads import MPSAHead
from .losses import FocalDiceLoss
from .necks import DLFANeck
from .text import PrecomputedPrompts, TemplatePrompts

__all__ = [
    "CLIPBackbone",
    "DLFANeck",
    "FocalDiceLoss",
    "MPSAHead",
    "PrecomputedPrompts",
    "TemplatePrompts",
    "load_clip",
]
