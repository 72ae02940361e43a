"""CLIP models of open_clip: configuration, loading, freezing."""

from .config import clip_config, clip_embed_dim
from .frozen import FrozenTower, tensors_fingerprint, weights_fingerprint
from .loading import load_clip

__all__ = [
    "FrozenTower",
    "clip_config",
    "clip_embed_dim",
    "load_clip",
    "tensors_fingerprint",
    "weights_fingerprint",
]
