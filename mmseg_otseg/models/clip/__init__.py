"""CLIP models of open_clip: configuration, loading, freezing."""

from .frozen import FrozenTower, tensors_fingerprint, tower_fingerprint, weights_fingerprint
from .layers import activation_name
from .loading import fetch_clip, is_here, load_clip, shared_clip
from .source import (
    PRECISIONS,
    CLIPSource,
    check_precision,
    clip_config,
    clip_embed_dim,
    resolve_clip,
)
from .support import check_image_tower, check_text_tower, supported_models

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
