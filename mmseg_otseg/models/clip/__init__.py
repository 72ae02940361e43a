"""CLIP models of open_clip: configuration, loading, freezing."""

from .frozen import FrozenTower, activation_name, tensors_fingerprint, tower_fingerprint
from .loading import fetch_clip, load_clip, shared_clip, weights_are_local
from .source import (
    check_image_tower,
    check_precision,
    check_text_tower,
    clip_config,
    clip_embed_dim,
    resolve_clip,
    supported_models,
)

__all__ = [
    "FrozenTower",
    "activation_name",
    "check_image_tower",
    "check_precision",
    "check_text_tower",
    "clip_config",
    "clip_embed_dim",
    "fetch_clip",
    "load_clip",
    "resolve_clip",
    "shared_clip",
    "supported_models",
    "tensors_fingerprint",
    "tower_fingerprint",
    "weights_are_local",
]
