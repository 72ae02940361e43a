"""The segmentor, which joins backbone, neck and head, and how its config is filled in."""

from .clip_encoder_decoder import CLIPEncoderDecoder, ZeroShotTTAModel
from .model_config import change_clip_config, resolve_model

__all__ = ["CLIPEncoderDecoder", "ZeroShotTTAModel", "change_clip_config", "resolve_model"]
