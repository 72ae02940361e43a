"""The configuration of a CLIP model, without building the model."""

from __future__ import annotations

import copy
import difflib
from collections.abc import Mapping
from typing import Any

import open_clip

from mmseg_otseg.errors import UserError

REQUIRED_KEYS = ("embed_dim", "vision_cfg", "text_cfg")
_WITHOUT_TEXT = ("PE-Spatial", "PE-Lang")  # Perception Encoder's, trained on from PE-Core


def clip_config(model: str | Mapping[str, Any]) -> dict[str, Any]:
    """Configuration of a CLIP model in open_clip's form.

    Args:
        model: A model name of open_clip (``"ViT-B-16"``; ``"ViT-B/16"`` is the same), or such a
            configuration itself: ``embed_dim``, ``vision_cfg``, ``text_cfg`` and anything else
            that ``open_clip.CLIP`` takes.

    Returns:
        A copy of the configuration.

    Raises:
        UserError: If open_clip has no such model, or keys are missing.
    """
    if isinstance(model, str):
        name = model.replace("/", "-")
        config = open_clip.get_model_config(name)
        if config is None:
            known = open_clip.list_models()
            close = difflib.get_close_matches(name, known, n=4, cutoff=0.4)
            hint = f"did you mean {', '.join(close)}?" if close else "see open_clip.list_models()"
            if any(name.startswith(tower) for tower in _WITHOUT_TEXT):
                hint = f"it is an image tower without a text tower, so no CLIP; {hint}"
            raise UserError(f"open_clip has no CLIP model named {model!r}: {hint}")
        return config
    # A mmengine ConfigDict must not reach open_clip's dataclasses.
    plain = {
        key: dict(value) if isinstance(value, Mapping) else value for key, value in model.items()
    }
    missing = [key for key in REQUIRED_KEYS if key not in plain]
    if missing:
        raise UserError(
            f"a CLIP configuration given as a dict needs {', '.join(REQUIRED_KEYS)} "
            f"(as in open_clip's model_configs); missing: {', '.join(missing)}"
        )
    return copy.deepcopy(plain)


def clip_embed_dim(model: str | Mapping[str, Any]) -> int:
    """Width D of the joint image-text embedding of a CLIP model (name or configuration)."""
    return int(clip_config(model)["embed_dim"])
