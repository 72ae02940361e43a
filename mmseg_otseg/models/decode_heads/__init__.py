"""Decode heads; CONTRIBUTING.md shows how a method of your own becomes one."""

from .decoder import Decoder, DecoderLayer
from .mpsa_head import MPSADecoder, MPSADecoderLayer, MPSAHead, MPSAMap
from .similarity_head import SimilarityHead
from .zegclip_head import MultiHeadDecoder, MultiHeadLayer, MultiHeadMap, ZegCLIPHead
from .zero_shot_head import ZeroShotHead, query_targets, state_key

__all__ = [
    "Decoder",
    "DecoderLayer",
    "MPSADecoder",
    "MPSADecoderLayer",
    "MPSAHead",
    "MPSAMap",
    "MultiHeadDecoder",
    "MultiHeadLayer",
    "MultiHeadMap",
    "SimilarityHead",
    "ZegCLIPHead",
    "ZeroShotHead",
    "query_targets",
    "state_key",
]
