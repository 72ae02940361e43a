"""CLIP models of open_clip: configuration, loading, freezing."""

from .config import clip_config, clip_embed_dim
from .frozen import FrozenTower, tensors_fingerprint, tower_fingerprint, weights_fingerprint
from .loading import fetch_clip, load_clip, shared_clip
from .precision import check_precision
from .source import CLIPSource, resolve_clip
from .supported import check_image_tower, check_text_tower, supported_models

__all__ = [
    "CLIPSource",
    "FrozenTower",
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
    "weights_fingerprint",
]
