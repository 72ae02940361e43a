"""Which of open_clip's models this package can run."""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping
from functools import cache
from typing import Any

import open_clip
import timm

from mmseg_otseg.errors import UserError

from .source import clip_config

# timm's modules whose towers are plain ViTs: blocks that see all tokens.
TIMM_VITS = ("eva", "vision_transformer", "vision_transformer_hybrid")
TIMM_POOLS = ("token", "map")  # the class token, an attention pool


def check_image_tower(model: str | Mapping[str, Any]) -> None:
    """Check that a model's image tower is one of those in :mod:`.towers`.

    Raises:
        UserError: If it is not, with the reason and with models that are.
    """
    reason = _image_problem(clip_config(model))
    if reason:
        raise UserError(
            f"{_name(model)} cannot be the backbone: {reason}. {_list_supported(model)}"
        )


def check_text_tower(model: str | Mapping[str, Any], learnable: bool = False) -> None:
    """Check that a model's text tower is open_clip's own transformer.

    Args:
        model: A model name of open_clip, or a configuration.
        learnable: Whether learned tokens will be put among those of a text, which needs CLIP's own
            tokenizer and a causal tower.

    Raises:
        UserError: If it is not, with the reason and what to do.
    """
    config = clip_config(model)
    reason = _text_problem(config)
    if not reason and learnable and (reason := _context_problem(config)):
        raise UserError(
            f"{_name(model)} cannot have learnable prompts: {reason}. Use TemplatePrompts."
        )
    if reason:
        raise UserError(
            f"{_name(model)} cannot encode the prompts: {reason}. Encode them elsewhere and use "
            f"PrecomputedPrompts. {_list_supported(model)}"
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
        return _timm_problem(vision)
    if isinstance(vision.get("layers"), (list, tuple)):
        return "its image tower is a ModifiedResNet, which has no tokens"
    if vision.get("attentional_pool") or vision.get("pool_type", "tok") != "tok":
        return "its image tower pools all tokens instead of using a class token"
    if vision.get("final_ln_after_pool"):
        return "its image tower normalizes after pooling, so that its patches are not aligned"
    return None


def _timm_problem(vision: Mapping[str, Any]) -> str | None:
    name, pool = vision["timm_model_name"], vision.get("timm_pool")
    if not timm.is_model(name):
        return f"timm has no model {name}"
    family = timm.model_entrypoint(name).__module__.rpartition(".")[2]
    projection = vision.get("timm_proj") or "none"
    if family == "convnext" and projection in ("linear", "mlp"):
        return None
    if family not in ("fastvit", *TIMM_VITS):
        return f"its image tower is timm's {name} ({family}), not a plain ViT, ConvNeXt or FastViT"
    if pool not in (("avg",) if family == "fastvit" else TIMM_POOLS):
        return f"its image tower, timm's {name}, pools its patches by {pool!r}"
    if projection != "none":
        return f"its image tower, timm's {name}, has a projection of open_clip on top"
    patch, native = re.search(r"patch(\d+)", name), timm.get_pretrained_cfg(name)
    if patch and native and native.input_size[-1] % int(patch[1]):
        return (
            f"its native size, {native.input_size[-1]}, is not a multiple of its patch, {patch[1]}"
        )
    return None


def _text_problem(config: Mapping[str, Any]) -> str | None:
    text = config["text_cfg"]
    if text.get("hf_model_name"):
        return f"its text tower is not open_clip's own but {text['hf_model_name']}"
    if text.get("embed_cls") or text.get("use_pad_mask"):
        return "its text tower has a class token or a mask of its own"
    if text.get("pool_type", "argmax") not in ("argmax", "last"):
        return f"its text tower pools by {text['pool_type']!r} instead of at the end"
    return None


def _context_problem(config: Mapping[str, Any]) -> str | None:
    text = config["text_cfg"]
    if text.get("hf_tokenizer_name"):
        return f"its tokenizer is not CLIP's own but {text['hf_tokenizer_name']}"
    if text.get("no_causal_mask") or text.get("pool_type", "argmax") != "argmax":
        return "its text tower is not causal, so that what follows the prompt changes it"
    return None


def _name(model: str | Mapping[str, Any]) -> str:
    return f"CLIP model {model!r}" if isinstance(model, str) else "this CLIP model"


def _list_supported(model: str | Mapping[str, Any]) -> str:
    name, supported = model if isinstance(model, str) else "", supported_models()
    near = difflib.get_close_matches(name, supported, n=2, cutoff=0.9)
    # Or the longest model name within it: ViT-L-14 in coca_ViT-L-14.
    near = near or sorted((other for other in supported if other in name), key=len)[-1:]
    near = near or ["ViT-B-16"]
    return f"Try {' or '.join(near)}; mmseg_otseg.models.supported_models() lists all that can"
