"""Segmentors."""

from .clip_encoder_decoder import CLIPEncoderDecoder
from .resolve import resolve_model

__all__ = ["CLIPEncoderDecoder", "resolve_model"]
