"""CLIP models of open_clip: configuration, loading, freezing."""

from .config import (
    check_image_tower,
    check_text_tower,
    clip_config,
    clip_embed_dim,
    supported_models,
)
from .frozen import (
    PRECISIONS,
    FrozenTower,
    check_precision,
    tensors_fingerprint,
    tower_fingerprint,
    weights_fingerprint,
)
from .layers import activation_name
from .loading import fetch_clip, is_here, load_clip, shared_clip
from .source import CLIPSource, resolve_clip

__all__ = [
    "PRECISIONS",
    "CLIPSource",
    "FrozenTower",
    "activation_name",
    "check_image_tower",
    "check_precision",
    "check_text_tower",
    "clip_config",
    "clip_embed_dim",
    "fetch_clip",
    "is_here",
    "load_clip",
    "resolve_clip",
    "shared_clip",
    "supported_models",
    "tensors_fingerprint",
    "tower_fingerprint",
    "weights_fingerprint",
]
