"""Which of open_clip's models this package can run, and why not the others."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import Any

import open_clip

from .config import clip_config


def check_image_tower(model: str | Mapping[str, Any]) -> None:
    """Check that a model's image tower is open_clip's own ViT with a class token.

    Raises:
        ValueError: Saying what it is instead, and which models there are.
    """
    reason = _image_problem(clip_config(model))
    if reason:
        raise ValueError(f"{_name(model)} cannot be the backbone: {reason}. {_list_supported()}")


def check_text_tower(model: str | Mapping[str, Any]) -> None:
    """Check that a model's text tower is CLIP's causal transformer that ends in an end token.

    Raises:
        ValueError: Saying what it is instead, and what to do.
    """
    reason = _text_problem(clip_config(model))
    if reason:
        raise ValueError(
            f"{_name(model)} cannot encode the prompts: {reason}. Encode them elsewhere and use "
            f"PrecomputedPrompts. {_list_supported()}"
        )


@cache
def supported_models() -> tuple[str, ...]:
    """Names of open_clip's models that run here, image tower and text tower."""
    configs = {name: open_clip.get_model_config(name) for name in open_clip.list_models()}
    return tuple(
        name
        for name, config in configs.items()
        if config and not _image_problem(config) and not _text_problem(config)
    )


def _image_problem(config: Mapping[str, Any]) -> str | None:
    vision = config["vision_cfg"]
    if vision.get("timm_model_name"):
        return (
            f"its image tower is timm's {vision['timm_model_name']} (as those of EVA, SigLIP and "
            "ConvNeXt), whose layers are not open_clip's"
        )
    if isinstance(vision.get("layers"), (list, tuple)):
        return "its image tower is a ModifiedResNet, which has no tokens"
    if vision.get("attentional_pool") or vision.get("pool_type", "tok") != "tok":
        return "its image tower pools all tokens instead of using a class token"
    if vision.get("final_ln_after_pool"):
        return "its image tower normalises after pooling, so that its patches are not aligned"
    return None


def _text_problem(config: Mapping[str, Any]) -> str | None:
    text = config["text_cfg"]
    if text.get("hf_model_name") or text.get("hf_tokenizer_name"):
        name = text.get("hf_model_name") or text["hf_tokenizer_name"]
        return f"its text tower or tokenizer is not CLIP's own but {name}"
    if text.get("no_causal_mask") or text.get("embed_cls"):
        return "its text tower is not causal"
    if text.get("pool_type", "argmax") != "argmax":
        return f"its text tower pools by {text['pool_type']!r} instead of at the end token"
    return None


def _name(model: str | Mapping[str, Any]) -> str:
    return f"CLIP model {model!r}" if isinstance(model, str) else "this CLIP model"


def _list_supported() -> str:
    return f"Supported are: {', '.join(supported_models())}"
