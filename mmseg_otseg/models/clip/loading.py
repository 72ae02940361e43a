"""Building open_clip models and loading their weights, from a tag or from any usual file."""

from __future__ import annotations

import logging
import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import open_clip
import torch
from mmengine.logging import print_log
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file
from torch import Tensor, nn

from .config import clip_config
from .torchscript import is_torchscript_archive, read_torchscript_tensors

TOKEN_TABLE = "token_embedding.weight"
# What OpenAI's archives hold besides weights.
ARCHIVE_EXTRAS = ("input_resolution", "context_length", "vocab_size", "attn_mask")
TOKEN_IDS, TOKEN_ROWS = "token_embedding.ids", "token_embedding.rows"


def load_clip(
    model: str | Mapping[str, Any],
    pretrained: str | None = None,
    seed: int = 0,
    cache_dir: str | None = None,
) -> open_clip.CLIP:
    """Build a CLIP model of open_clip, on the CPU in float32, and load its weights.

    Args:
        model: A model name of open_clip, or a configuration (see :func:`clip_config`).
        pretrained: A tag of open_clip (``"openai"``, ``"laion2b_s34b_b88k"``), or the path of an
            OpenAI ``.pt`` archive, an open_clip ``.pt``/``.bin`` or a ``.safetensors`` file, or
            None for random weights, which depend on ``seed`` alone. OpenAI's weights bring their
            QuickGELU with them. A ``.safetensors`` file may hold just the rows of the token table
            that its vocabulary needs, as ``token_embedding.ids`` (n,) and ``token_embedding.rows``
            (n, width).
        seed: Seed of the random weights when ``pretrained`` is None.
        cache_dir: Where open_clip keeps downloads; None is its default.

    Returns:
        The model, in eval mode.

    Raises:
        ValueError: If the model or tag is unknown, or a file cannot be read or belongs to another
            architecture.
        FileNotFoundError: If ``pretrained`` looks like a path and no such file exists.
        ConnectionError: If the weights of a tag cannot be downloaded.
    """
    config = clip_config(model)
    if pretrained is None:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            return _build(config).eval()
    path = _find_weights(model, pretrained, config, cache_dir)
    archive = is_torchscript_archive(path)
    if archive:
        config["quick_gelu"] = True
    with torch.random.fork_rng(devices=[]):  # loading must not move the caller's random numbers on
        clip = _build(config)
    try:
        _load_weights(clip, path, archive)
    except (
        OSError,
        EOFError,
        SafetensorError,
        pickle.UnpicklingError,
        KeyError,
        StopIteration,
    ) as error:
        raise ValueError(
            f"cannot read CLIP weights from {path}: the file is truncated, damaged or holds "
            f"something other than weights ({_first_line(error)})"
        ) from error
    except RuntimeError as error:
        if "PytorchStreamReader" in str(error) or "invalid header" in str(error):
            raise ValueError(
                f"cannot read CLIP weights from {path}: the file is truncated or damaged"
            ) from error
        raise ValueError(
            f"the weights in {path} do not belong to the CLIP model {_describe(model)}: "
            f"{_mismatch(error)}"
        ) from error
    print_log(f"CLIP {_describe(model)}: weights from {path}", logger="current", level=logging.INFO)
    return clip.eval()


def _build(config: dict[str, Any]) -> open_clip.CLIP:
    config = dict(config)
    custom = config.pop("custom_text", False) or "hf_model_name" in config["text_cfg"]
    try:
        return (open_clip.CustomTextCLIP if custom else open_clip.CLIP)(**config)
    except TypeError as error:
        raise ValueError(f"open_clip cannot build this CLIP configuration: {error}") from error


def _find_weights(
    model: str | Mapping[str, Any], pretrained: str, config: dict[str, Any], cache_dir: str | None
) -> Path:
    """The weights file that ``pretrained`` means; a tag may adapt ``config`` to its model."""
    path = Path(pretrained).expanduser()
    if path.is_file():
        return path
    if path.suffix or len(path.parts) > 1:
        raise FileNotFoundError(
            f"CLIP weights {pretrained!r} not found. Give an existing .pt, .bin or .safetensors "
            "file, or one of open_clip's tags."
        )
    name = model.replace("/", "-") if isinstance(model, str) else None
    tag = open_clip.get_pretrained_cfg(name, pretrained) if name else None
    if not tag:
        tags = open_clip.list_pretrained_tags_by_model(name) if name else []
        raise ValueError(
            f"{pretrained!r} is neither a file nor a tag of open_clip for {_describe(model)}; "
            + (f"its tags: {', '.join(tags)}" if tags else "such a model has no tags: give a path")
        )
    if tag.get("quick_gelu"):
        config["quick_gelu"] = True
    try:
        return Path(open_clip.download_pretrained(tag, cache_dir=cache_dir))
    except Exception as error:  # each hub client has errors of its own
        raise ConnectionError(
            f"cannot download the weights {pretrained!r} of {name} ({_first_line(error)}). Without "
            "network access, copy the weights file here and give its path as `pretrained` (or in "
            "the environment variable CLIP_WEIGHTS, which the project's configs read)."
        ) from error


def _load_weights(clip: nn.Module, path: Path, archive: bool) -> None:
    if archive:
        tensors = read_torchscript_tensors(path)
        clip.load_state_dict({k: v for k, v in tensors.items() if not k.endswith(ARCHIVE_EXTRAS)})
    elif path.suffix == ".safetensors" and _has_compact_tokens(path):
        clip.load_state_dict(_expand_tokens(load_file(path), clip))
    else:
        open_clip.load_checkpoint(clip, str(path), strict=True, weights_only=True)


def _has_compact_tokens(path: Path) -> bool:
    with safe_open(path, framework="pt") as file:
        return TOKEN_IDS in file.keys()  # noqa: SIM118 (no mapping)


def _expand_tokens(tensors: dict[str, Tensor], clip: nn.Module) -> dict[str, Tensor]:
    """Put the rows of a compact token table into their places; the other rows are zero."""
    ids, rows = tensors.pop(TOKEN_IDS), tensors.pop(TOKEN_ROWS)
    table = torch.zeros_like(clip.get_parameter(TOKEN_TABLE))
    table[ids] = rows.to(table.dtype)
    return {**tensors, TOKEN_TABLE: table}


def _describe(model: str | Mapping[str, Any]) -> str:
    return model if isinstance(model, str) else "given as a dict"


def _first_line(error: BaseException) -> str:
    return str(error).strip().split("\n")[0] or type(error).__name__


def _mismatch(error: RuntimeError) -> str:
    lines = [line.strip() for line in str(error).split("\n")[1:] if line.strip()]
    return "; ".join(line[:200] for line in lines[:3]) or _first_line(error)
