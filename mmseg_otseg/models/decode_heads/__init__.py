"""Decode heads."""

from .mpsa import MPSADecoder, MPSADecoderLayer, MPSAMap
from .mpsa_head import ClassMaps, MPSAHead, query_targets

__all__ = ["ClassMaps", "MPSADecoder", "MPSADecoderLayer", "MPSAHead", "MPSAMap", "query_targets"]
