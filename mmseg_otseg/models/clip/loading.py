"""Building open_clip models and loading their weights from a tag or a file."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import Any

import open_clip
import torch
from mmengine.logging import print_log
from open_clip.convert import convert_state_dict
from open_clip.model import (
    convert_to_custom_text_state_dict,
    resize_pos_embed,
    resize_text_pos_embed,
)
from torch import Tensor, nn

from mmseg_otseg.errors import UserError

from .files import read_clip_weights
from .frozen import check_precision
from .layers import activation_name, with_self_attention
from .source import (
    CONFIG_FILE,
    CLIPSource,
    cached_weights,
    download_weights,
    resolve_clip,
)

TOKEN_TABLE = "token_embedding.weight"
TOKEN_IDS, TOKEN_ROWS = "token_embedding.ids", "token_embedding.rows"
# How names start where transformers saved a CLIP.
TRANSFORMERS_NAMES = ("vision_model.encoder.", "text_model.encoder.")

# The CLIPs that were built inside `shared_clip`, by what they were built from.
_shared: ContextVar[dict[str, open_clip.CLIP] | None] = ContextVar("shared clips", default=None)


@contextmanager
def shared_clip() -> Iterator[None]:
    """Within this context, :func:`load_clip` builds one CLIP for all calls with equal settings.

    The parts of a model are built in it. Each of them keeps different modules of the CLIP, so the
    finished parts share none.
    """
    token = _shared.set({})
    try:
        yield
    finally:
        _shared.reset(token)


def load_clip(
    model: str | Mapping[str, Any],
    pretrained: str | None = None,
    seed: int = 0,
    cache_dir: str | None = None,
    quick_gelu: bool | None = None,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    precision: str = "fp32",
) -> open_clip.CLIP:
    """Build a CLIP model of open_clip, on the CPU in float32, and load its weights.

    Args:
        model: A model name of open_clip, or a configuration (see :func:`clip_config`).
        pretrained: A tag of open_clip (``"openai"``, ``"laion2b_s34b_b88k"``); or the path of an
            OpenAI ``.pt`` archive, an open_clip ``.pt``/``.bin`` or a ``.safetensors`` file, or
            ``hf://OWNER/NAME[/FILE]`` for such a file on the Hugging Face hub; or None for random
            weights, which depend on ``seed`` alone. A ``.safetensors`` file may hold just the rows
            of the token table that its vocabulary needs, as ``token_embedding.ids`` (n,) and
            ``token_embedding.rows`` (n, width).
        seed: Seed of the random weights when ``pretrained`` is None.
        cache_dir: Where open_clip keeps downloads; None is its default.
        quick_gelu: Whether the activation is QuickGELU, which OpenAI's, DFN's and MetaCLIP's
            weights need and most others do not. None: what :func:`resolve_clip` finds out, and if
            it finds nothing, GELU with a warning.
        mean: Mean of the pixels CLIP was trained on, RGB, 0..255. None: what :func:`resolve_clip`
            finds out. The model does not normalize pixels itself; it keeps the mean in
            ``visual.preprocess_cfg``, in 0..1.
        std: Their standard deviation, likewise.
        precision: In which :class:`FrozenTower` stores and runs the towers that a model keeps:
            ``"fp32"``, ``"bf16"`` or ``"fp16"``. It is only checked here: the model returned is
            always in float32. With ``"fp16"``, gradients that pass through a tower can underflow to
            zero, so train with a loss scale, as ``tools/train.py --amp`` does.

    Returns:
        The model, in eval mode.

    Raises:
        UserError: If the model, tag or precision is unknown, or a file cannot be read or belongs
            to another architecture.
        FileNotFoundError: If ``pretrained`` is a path of a file that does not exist.
        ConnectionError: If the weights of a tag cannot be downloaded.
    """
    check_precision(precision)
    source = resolve_clip(model, pretrained, quick_gelu, mean, std)
    shared, key = _shared.get(), repr((source, seed, cache_dir))
    if shared is None:
        return _load(source, pretrained, seed, cache_dir)
    if key not in shared:
        shared[key] = _load(source, pretrained, seed, cache_dir)
    return shared[key]


def fetch_clip(model: str | Mapping[str, Any], pretrained: str | None = None, **rest: Any) -> None:
    """Download the weights that a ``clip`` setting names by tag, unless they are already here.

    Args:
        model: As in :func:`load_clip`.
        pretrained: As in :func:`load_clip`.
        rest: The other options of :func:`load_clip`.

    Raises:
        ValueError, FileNotFoundError, ConnectionError: As in :func:`load_clip`.
    """
    source = resolve_clip(model, pretrained, **rest)
    if source.tag is not None:
        _download(source, str(pretrained), rest.get("cache_dir"))


def is_here(model: str | Mapping[str, Any], pretrained: str | None = None, **rest: Any) -> bool:
    """Whether the weights of a ``clip`` setting can be loaded without a download.

    Args:
        model, pretrained, rest: As in :func:`fetch_clip`.
    """
    source = resolve_clip(model, pretrained, **rest)
    return source.tag is None or cached_weights(source.tag, rest.get("cache_dir")) is not None


def _load(
    source: CLIPSource, pretrained: str | None, seed: int, cache_dir: str | None
) -> open_clip.CLIP:
    path = source.file
    if source.tag is not None:
        path = _download(source, str(pretrained), cache_dir)
    tensors = None if path is None else read_clip_weights(path)
    if tensors is not None and any(name.startswith(TRANSFORMERS_NAMES) for name in tensors):
        raise UserError(
            f"the CLIP weights in {path} are in the layout of transformers (vision_model.encoder). "
            f"open_clip's layout is needed: {_where_open_clips_is(source)}"
        )
    with torch.random.fork_rng(devices=[]):  # the caller's random numbers must not move on
        torch.manual_seed(seed)
        clip = _build(source.config)
    if path is not None and tensors is not None:
        try:
            _load_tensors(clip, tensors)
        except Exception as error:  # open_clip's conversions and torch's loading raise many kinds
            raise UserError(
                f"the weights in {path} do not belong to the CLIP model {source.name}: "
                f"{_mismatch(error)}"
            ) from error
        _check_finite(clip, path)
        _report(source, path)
    else:
        print_log(
            f"CLIP {source.name} has random weights (pretrained=None): good for a trial only",
            logger="current",
            level=logging.WARNING,
        )
    pixels = {key: tuple(part / 255 for part in getattr(source, key)) for key in ("mean", "std")}
    open_clip.set_model_preprocess_cfg(clip, pixels)
    return with_self_attention(clip.eval())


def _where_open_clips_is(source: CLIPSource) -> str:
    """Where the weights of a model are in open_clip's own layout."""
    names = "open_clip_model.safetensors or open_clip_pytorch_model.bin"
    tags = open_clip.list_pretrained_tags_by_model(source.name.replace("/", "-"))
    entries = {tag: open_clip.get_pretrained_cfg(source.name, tag) for tag in tags}
    places = [
        f"{entry['hf_hub'].rstrip('/')} ({tag})"
        for tag, entry in entries.items()
        if entry.get("hf_hub")
    ]
    if not places:
        return f"take {names} of the same model"
    return f"take {names} from the hub's {', '.join(places[:6])}"


def _build(config: Mapping[str, Any]) -> open_clip.CLIP:
    config = dict(config)
    custom = config.pop("custom_text", False) or "hf_model_name" in config["text_cfg"]
    try:
        return (open_clip.CustomTextCLIP if custom else open_clip.CLIP)(**config)
    except (TypeError, AssertionError) as error:  # e.g. a width that its heads do not divide
        raise UserError(f"open_clip cannot build this CLIP configuration: {error}") from error


def _download(source: CLIPSource, tag: str, cache_dir: str | None) -> Path:
    try:
        return download_weights(source.tag or {}, cache_dir)
    except ConnectionError as error:
        raise ConnectionError(
            f"{error} For CLIP (here {source.name}, {tag!r}), that is the environment variable "
            "CLIP_WEIGHTS, which the project's configs read, or model.clip.pretrained. With a "
            f".safetensors or .bin file, copy {CONFIG_FILE} of the same page beside it, or set "
            f"model.clip.quick_gelu={source.quick_gelu} too."
        ) from error


def _load_tensors(clip: nn.Module, tensors: dict[str, Tensor]) -> None:
    """Load weights as open_clip's releases name them; positions are resized to the model's."""
    tensors = convert_state_dict(clip, _expand_tokens(tensors, clip))
    if not hasattr(clip, "positional_embedding"):
        tensors = convert_to_custom_text_state_dict(tensors)
    for name in ("logit_scale", "logit_bias"):  # a number in some files, a vector of one in others
        if name in tensors and getattr(clip, name, None) is not None:
            tensors[name] = tensors[name].reshape(getattr(clip, name).shape)
    resize_pos_embed(tensors, clip)
    resize_text_pos_embed(tensors, clip)
    clip.load_state_dict(tensors)


def _expand_tokens(tensors: dict[str, Tensor], clip: nn.Module) -> dict[str, Tensor]:
    """Put the rows of a compact token table into their places; the other rows are zero."""
    if TOKEN_IDS not in tensors:
        return tensors
    ids, rows = tensors.pop(TOKEN_IDS), tensors.pop(TOKEN_ROWS)
    table = torch.zeros_like(clip.get_parameter(TOKEN_TABLE))
    table[ids] = rows.to(table.dtype)
    return {**tensors, TOKEN_TABLE: table}


def _check_finite(clip: nn.Module, path: Path) -> None:
    for name, value in clip.state_dict().items():
        # Infinity and NaN survive a sum, which needs no second tensor.
        if name != "attn_mask" and value.is_floating_point() and not value.sum().isfinite():
            raise UserError(f"the CLIP weights in {path} are damaged: {name} is not finite")


def _report(source: CLIPSource, path: Path) -> None:
    activation, who = activation_name(source.quick_gelu), source.stated_by["quick_gelu"]
    print_log(
        f"CLIP {source.name}: weights from {path}, activation {activation} ({who})",
        logger="current",
        level=logging.INFO,
    )
    if not source.activation_is_known:
        print_log(
            f"Nothing states which activation the CLIP weights in {path} were trained with, so it "
            "is GELU. OpenAI's, DFN's and MetaCLIP's weights need QuickGELU: if they are such, set "
            "clip=dict(quick_gelu=True). If not, clip=dict(quick_gelu=False) ends this warning.",
            logger="current",
            level=logging.WARNING,
        )


def _mismatch(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return "; ".join(line[:200] for line in (lines[1:4] or lines)) or type(error).__name__
