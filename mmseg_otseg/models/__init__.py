"""Registered components: segmentor, backbone, neck, head, text prompts, loss."""

from .backbones import CLIPBackbone
from .clip import load_clip, supported_models
from .decode_heads import MPSAHead, SimilarityHead, ZegCLIPHead, ZeroShotHead
from .losses import FocalDiceLoss
from .necks import DLFANeck
from .segmentors import CLIPEncoderDecoder, ZeroShotTTAModel
from .text import LearnablePrompts, PrecomputedPrompts, TemplatePrompts

__all__ = [
    "CLIPBackbone",
    "CLIPEncoderDecoder",
    "DLFANeck",
    "FocalDiceLoss",
    "LearnablePrompts",
    "MPSAHead",
    "PrecomputedPrompts",
    "SimilarityHead",
    "TemplatePrompts",
    "ZegCLIPHead",
    "ZeroShotHead",
    "ZeroShotTTAModel",
    "load_clip",
    "supported_models",
]
