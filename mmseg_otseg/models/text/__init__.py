"""From class names to text embeddings."""

from .learnable_prompts import LearnablePrompts
from .precomputed_prompts import PrecomputedPrompts
from .prompts import TemplatePrompts, TextPrompts
from .text_tower import TextTower, build_text_tower, encode_texts

__all__ = [
    "LearnablePrompts",
    "PrecomputedPrompts",
    "TemplatePrompts",
    "TextPrompts",
    "TextTower",
    "build_text_tower",
    "encode_texts",
]
