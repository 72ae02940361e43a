"""Building open_clip models and loading their weights from a tag or a file."""

from __future__ import annotations

import logging
import os
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from functools import cache
from pathlib import Path
from typing import Any

import open_clip
import torch
from mmengine.logging import print_log
from open_clip.convert import convert_state_dict
from open_clip.factory import load_state_dict
from open_clip.model import (
    convert_to_custom_text_state_dict,
    resize_pos_embed,
    resize_text_pos_embed,
)
from torch import Tensor, nn

from mmseg_otseg import hub
from mmseg_otseg.errors import UserError

from .frozen import activation_name
from .source import (
    CONFIG_FILE,
    DEFAULT,
    WEIGHTS_FILES,
    CLIPSource,
    check_precision,
    is_torchscript_archive,
    resolve_clip,
)
from .towers import with_self_attention

TOKEN_TABLE = "token_embedding.weight"
TOKEN_IDS, TOKEN_ROWS = "token_embedding.ids", "token_embedding.rows"
# What OpenAI's archives hold besides weights.
ARCHIVE_EXTRAS = ("input_resolution", "context_length", "vocab_size", "attn_mask")

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
    source = resolve_clip(model, pretrained, quick_gelu)
    shared, key = _shared.get(), repr((source, seed, cache_dir))
    if shared is None:
        return _load(source, seed, cache_dir)
    if key not in shared:
        shared[key] = _load(source, seed, cache_dir)
    return shared[key]


def fetch_clip(model: str | Mapping[str, Any], pretrained: str | None = None, **rest: Any) -> None:
    """Download the weights that a ``clip`` setting names by tag, unless they are already here.

    Takes the arguments of :func:`load_clip` and raises what it raises.
    """
    source = resolve_clip(model, pretrained, **rest)
    if source.tag is not None:
        download_weights(source, rest.get("cache_dir"))


def _load(source: CLIPSource, seed: int, cache_dir: str | None) -> open_clip.CLIP:
    path = source.file if source.tag is None else download_weights(source, cache_dir)
    tensors = None if path is None else _read_weights(path)
    with torch.random.fork_rng(devices=[]):  # the caller's random numbers must not move on
        torch.manual_seed(seed)
        config = dict(source.config)
        custom = config.pop("custom_text", False) or "hf_model_name" in config["text_cfg"]
        clip = (open_clip.CustomTextCLIP if custom else open_clip.CLIP)(**config)
    if tensors is None:
        _warn_of_random_weights(source.name)
    else:
        try:
            _load_tensors(clip, tensors)
        except Exception as error:  # open_clip's conversions and torch's loading raise many kinds
            lines = [line.strip()[:200] for line in str(error).splitlines() if line.strip()]
            reason = "; ".join(lines[1:4] or lines) or type(error).__name__
            raise UserError(
                f"the weights in {path} do not belong to the CLIP model {source.name}: {reason}"
            ) from error
        _report(source, str(path))
    return with_self_attention(clip.eval())


def _read_weights(path: Path) -> dict[str, Tensor]:
    """Read names and tensors from a CLIP weights file without executing what it holds.

    OpenAI's archives are TorchScript programs. Loading one compiles it and runs nothing; torch's
    other reader, which open_clip uses for everything else, refuses them.
    """
    try:
        if is_torchscript_archive(path):
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", FutureWarning)  # torch advises torch.export
                found = torch.jit.load(path, map_location="cpu").state_dict()
            return {k: v for k, v in found.items() if not k.endswith(ARCHIVE_EXTRAS)}
        weights = dict(load_state_dict(str(path), weights_only=True))
    except Exception as error:  # a broken file can make its reader raise anything
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        if reason.startswith("Weights only load failed"):  # torch's advice is to execute the file
            reason = "it holds other things than tensors by name, or is damaged"
        reason = hub.seems_to_be(path) or reason
        raise UserError(f"cannot read CLIP weights from {path}: {reason}") from error
    if any(str(name).startswith("vision_model.") for name in weights):
        raise UserError(
            f"the CLIP weights in {path} have the layout of transformers. Use the file in "
            "open_clip's layout, which usually lies in the same or a neighboring repository as "
            "open_clip_model.safetensors or open_clip_pytorch_model.bin; OpenAI's weights have the "
            "tag 'openai'."
        )
    return weights


def download_weights(source: CLIPSource, cache_dir: str | None = None) -> Path:
    """The weights file of a tag, downloaded on first use; a ConnectionError if it cannot be."""
    tag: Mapping[str, Any] = source.tag or {}
    try:
        if tag.get("hf_hub"):
            repo, files = _hub_files(tag)
            return hub.fetch(hub.SCHEME + repo, files, cache_dir)
        page, file = os.path.split(tag["url"])
        try:
            hub.announce(tag["url"], hub.reach(tag["url"]))
            return Path(open_clip.download_pretrained(dict(tag), cache_dir=cache_dir))
        except Exception as error:  # each client has errors of its own
            raise hub.download_error(file, page, error) from error
    except ConnectionError as error:
        raise ConnectionError(
            f"{error} For CLIP (here {source.name}), that is the environment variable "
            "CLIP_WEIGHTS, which the project's configs read, or model.clip.pretrained. With a "
            f".safetensors or .bin file, copy {CONFIG_FILE} of the same page beside it, or set "
            f"model.clip.quick_gelu={source.quick_gelu} too."
        ) from error


def weights_are_local(
    model: str | Mapping[str, Any], pretrained: str | None = None, **rest: Any
) -> bool:
    """Whether the weights of a ``clip`` setting can be loaded without a download."""
    tag = resolve_clip(model, pretrained, **rest).tag
    if tag is None:
        return True
    return (
        bool(tag.get("hf_hub")) and hub.cached(*_hub_files(tag), rest.get("cache_dir")) is not None
    )


def _hub_files(tag: Mapping[str, Any]) -> tuple[str, Sequence[str]]:
    """The hub's repository of a tag, and the names that its weights file may have."""
    repo, file = os.path.split(tag["hf_hub"])
    return repo, [os.path.splitext(file)[0] + ".safetensors", file] if file else WEIGHTS_FILES


def _load_tensors(clip: nn.Module, tensors: dict[str, Tensor]) -> None:
    """Load weights as open_clip's releases name them; positions are resized to the model's."""
    if TOKEN_IDS in tensors:  # a compact token table: its other rows are zero
        table = torch.zeros_like(clip.get_parameter(TOKEN_TABLE))
        table[tensors.pop(TOKEN_IDS)] = tensors.pop(TOKEN_ROWS).to(table.dtype)
        tensors[TOKEN_TABLE] = table
    tensors = convert_state_dict(clip, tensors)
    if not hasattr(clip, "positional_embedding"):
        tensors = convert_to_custom_text_state_dict(tensors)
    for name in ("logit_scale", "logit_bias"):  # a number in some files, a vector of one in others
        if name in tensors and getattr(clip, name, None) is not None:
            tensors[name] = tensors[name].reshape(getattr(clip, name).shape)
    resize_pos_embed(tensors, clip)
    resize_text_pos_embed(tensors, clip)
    clip.load_state_dict(tensors)


@cache  # once for each model in a process, which may build it several times
def _warn_of_random_weights(name: str) -> None:
    print_log(
        f"CLIP {name} has random weights (pretrained=None): good for a trial only",
        "current",
        logging.WARNING,
    )


def _report(source: CLIPSource, path: str) -> None:
    activation, who = activation_name(source.quick_gelu), source.stated_by["quick_gelu"]
    print_log(
        f"CLIP {source.name}: weights from {path}, activation {activation} ({who})", "current"
    )
    if who == DEFAULT:
        print_log(
            f"Nothing states which activation the CLIP weights in {path} were trained with, so it "
            "is GELU. OpenAI's, DFN's and MetaCLIP's weights need QuickGELU: if they are such, set "
            "clip=dict(quick_gelu=True). If not, clip=dict(quick_gelu=False) ends this warning.",
            "current",
            logging.WARNING,
        )
