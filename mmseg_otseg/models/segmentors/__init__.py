"""Segmentors."""

from .clip_encoder_decoder import CLIPEncoderDecoder, ZeroShotTTAModel
from .model_config import change_clip, resolve_model

__all__ = ["CLIPEncoderDecoder", "ZeroShotTTAModel", "change_clip", "resolve_model"]
