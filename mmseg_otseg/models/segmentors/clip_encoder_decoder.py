"""A segmentor whose parts share one CLIP."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

from mmengine.config import ConfigDict
from mmseg.models.segmentors import EncoderDecoder
from mmseg.registry import MODELS


@MODELS.register_module()
class CLIPEncoderDecoder(EncoderDecoder):
    """mmseg's ``EncoderDecoder`` that tells backbone, neck and head which CLIP they are built for.

    A config then names CLIP in one place, and one line changes it:
    ``model = dict(clip=dict(model="ViT-L-14"))``. It adds nothing else: with ``clip`` given to each
    part, an ``EncoderDecoder`` is the same model with the same state dict.

    Args:
        clip: ``dict(model=..., pretrained=...)``, see :func:`~mmseg_otseg.models.clip.load_clip`.
            It goes to the parts that take a ``clip`` and have none of their own.
        backbone: Config of the backbone.
        decode_head: Config of the head.
        neck: Config of the neck.
        kwargs: As in ``EncoderDecoder``.
    """

    def __init__(
        self,
        clip: Mapping[str, Any],
        backbone: Mapping[str, Any],
        decode_head: Mapping[str, Any],
        neck: Mapping[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(
            backbone=_with_clip(backbone, clip),
            decode_head=_with_clip(decode_head, clip),
            neck=None if neck is None else _with_clip(neck, clip),
            **kwargs,
        )


def _with_clip(part: Mapping[str, Any], clip: Mapping[str, Any]) -> ConfigDict:
    """The config of a part, with ``clip`` if the part takes one and knows it from nothing else."""
    cls = MODELS.get(part["type"]) if isinstance(part["type"], str) else part["type"]
    takes = cls is not None and "clip" in inspect.signature(cls).parameters
    if takes and part.get("clip") is None and part.get("embed_dim") is None:
        return ConfigDict({**part, "clip": clip})
    return ConfigDict(part)
