"""Segmentors."""

from .clip_encoder_decoder import CLIPEncoderDecoder, ZeroShotTTAModel
from .model_config import resolve_model

__all__ = ["CLIPEncoderDecoder", "ZeroShotTTAModel", "resolve_model"]
