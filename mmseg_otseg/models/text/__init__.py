"""From class names to text embeddings."""

from .prompts import PrecomputedPrompts, TemplatePrompts, TextPrompts
from .text_tower import TextTower, build_text_tower, encode_texts

__all__ = [
    "PrecomputedPrompts",
    "TemplatePrompts",
    "TextPrompts",
    "TextTower",
    "build_text_tower",
    "encode_texts",
]
