"""Segmentors."""

from .clip_encoder_decoder import CLIPEncoderDecoder
from .resolve import resolve_model
from .zero_shot_tta_model import ZeroShotTTAModel

__all__ = ["CLIPEncoderDecoder", "ZeroShotTTAModel", "resolve_model"]
