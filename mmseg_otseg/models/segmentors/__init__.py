"""Segmentors."""

from .clip_encoder_decoder import CLIPEncoderDecoder

__all__ = ["CLIPEncoderDecoder"]
