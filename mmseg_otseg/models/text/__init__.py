"""From class names to text embeddings."""

from .learnable_prompts import LearnablePrompts
from .precomputed_prompts import PrecomputedPrompts
from .prompts import TextPrompts
from .template_prompts import OTSEG_6, TemplatePrompts, resolve_templates
from .text_tower import TextTower, build_text_tower, encode_texts

__all__ = [
    "OTSEG_6",
    "LearnablePrompts",
    "PrecomputedPrompts",
    "TemplatePrompts",
    "TextPrompts",
    "TextTower",
    "build_text_tower",
    "encode_texts",
    "resolve_templates",
]
