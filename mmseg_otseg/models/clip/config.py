"""The configuration of a CLIP model, and whether this package can run it."""

from __future__ import annotations

import copy
import difflib
import re
from collections.abc import Mapping
from functools import cache
from typing import Any

import open_clip
import timm

from mmseg_otseg.errors import UserError

REQUIRED_KEYS = ("embed_dim", "vision_cfg", "text_cfg")
# timm's modules whose towers are plain ViTs: blocks that see all tokens.
TIMM_VITS = ("eva", "vision_transformer", "vision_transformer_hybrid")
TIMM_POOLS = ("token", "map")  # the class token, an attention pool
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
    name = vision["timm_model_name"]
    if not timm.is_model(name):
        return f"timm has no model {name}"
    family = timm.model_entrypoint(name).__module__.rpartition(".")[2]
    if family == "convnext" and vision.get("timm_proj") in ("linear", "mlp"):
        return None
    if family == "fastvit" and vision.get("timm_pool") == "avg":
        return _projection_problem(vision)
    if family not in TIMM_VITS:
        return f"its image tower is timm's {name} ({family}), not a plain ViT, ConvNeXt or FastViT"
    if vision.get("timm_pool") not in TIMM_POOLS:
        return f"its image tower, timm's {name}, has no class token or attention pool for the text"
    patch, native = re.search(r"patch(\d+)", name), timm.get_pretrained_cfg(name)
    if patch and native and native.input_size[-1] % int(patch[1]):
        return (
            f"its native size, {native.input_size[-1]} pixels, is not a multiple of its patch, "
            f"{patch[1]}, so that open_clip cuts off the rest"
        )
    return _projection_problem(vision)


def _projection_problem(vision: Mapping[str, Any]) -> str | None:
    if vision.get("timm_proj") not in (None, "", "none"):
        name = vision["timm_model_name"]
        return f"its image tower, timm's {name}, has a projection of open_clip on top"
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
    near += sorted((other for other in supported if other in name), key=len)[-1:]
    near = list(dict.fromkeys(near)) or ["ViT-B-16"]
    return f"Try {' or '.join(near)}; mmseg_otseg.models.supported_models() lists all that can"
