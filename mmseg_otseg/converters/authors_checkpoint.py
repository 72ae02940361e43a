"""Converts checkpoints of OTSeg's and ZegCLIP's released code for this package."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from mmengine.logging import print_log
from torch import Tensor

from mmseg_otseg.converters.authors_tensors import check_authors_tensors
from mmseg_otseg.engine.checkpoint import check_target, read_checkpoint
from mmseg_otseg.errors import UserError
from mmseg_otseg.models.clip import tensors_fingerprint
from mmseg_otseg.models.decode_heads import Decoder, MPSADecoder, MultiHeadDecoder
from mmseg_otseg.models.decode_heads.decoder import encode_kind

# Tensors in the authors' checkpoints that do not affect the output: self-attention and its norm are
# never called, the criterion's class weights are never read, and only the attention map of the last
# decoder layer is used.
UNUSED = re.compile(
    r"text_encoder\."
    r"|decode_head\.loss_decode\."
    r"|decode_head\.decoder_1\.layers\.\d+\.(self_attn|norm1)\."
)
UNUSED_IN_LAST_LAYER = re.compile(r"multihead_attn\.(v|proj)\.|linear[12]\.|norm[23]\.")
LAYER = re.compile(r"decode_head\.decoder_1\.layers\.(\d+)\.(.+)")
LAYER_PARTS = {
    "multihead_attn.q": "attention.query",
    "multihead_attn.k": "attention.key",
    "multihead_attn.v": "value",
    "multihead_attn.proj": "proj",
    "linear1": "feed_forward.0",
    "linear2": "feed_forward.3",
    "norm2": "norm1",
    "norm3": "norm2",
}
BACKBONE_PARTS = {"prompt_proj": "visual_prompts.proj", "prompt_norm": "visual_prompts.norm"}
CLIP = "backbone.clip.module."
NO_METHOD = "OTSeg or ZegCLIP (its training config is not in the file)"
# The files of both methods have the same tensors; only the training configs differ.
DECODERS: dict[str, type[Decoder]] = {"OTSeg": MPSADecoder, "ZegCLIP": MultiHeadDecoder}
# Tensors that the authors' files do not have; the model computes them from the class names.
MADE_BY_THE_MODEL = ("neck.text.embeddings", "neck.text.vocabulary_digest", "neck.text.fingerprint")


class Conversion(NamedTuple):
    """The result of converting an authors' checkpoint.

    Attributes:
        method: ``"OTSeg"`` or ``"ZegCLIP"``; None if the file does not say.
        used: Names of the authors' tensors that were converted.
        dropped: Names of the authors' tensors that do not affect the output.
        missed: Names of this package's tensors that the authors' files do not have; the model
            computes them.
    """

    method: str | None
    used: tuple[str, ...]
    dropped: tuple[str, ...]
    missed: tuple[str, ...]


def convert_authors_checkpoint(src: str | Path, dst: str | Path) -> Conversion:
    """Convert a checkpoint file of OTSeg's or ZegCLIP's authors for this package's configs.

    The training config inside the file tells which method it belongs to. A file without its config
    fits the configs of both methods.

    The file is read without executing any code in it. The new file also holds the image tower,
    because the authors' position embedding has the training resolution, and records that the class
    embedding counts twice.

    Args:
        src: The authors' file: a dict with ``state_dict`` and ``meta``.
        dst: The file to write; its folder is created if missing.

    Returns:
        The method, and the names that were used, dropped and missed, which are also logged.

    Raises:
        FileNotFoundError: If ``src`` does not exist.
        UserError: If ``src`` is not a checkpoint, tensors are missing, unknown or of the wrong
            shape (the message names them), or ``dst`` is the same file or a ``.safetensors`` file.
    """
    source, target = Path(src).expanduser(), Path(dst).expanduser()
    if target.exists() and source.exists() and target.samefile(source):
        raise UserError(f"{dst} is the file to convert; choose another name for the result")
    check_target(target)
    checkpoint = read_checkpoint(source, map_location="cpu")
    state = checkpoint.get("state_dict") if isinstance(checkpoint, dict) else None
    if not isinstance(state, Mapping) or not all(isinstance(v, Tensor) for v in state.values()):
        raise UserError(
            f"{src} holds no `state_dict` of tensors, so it is not a checkpoint of the authors"
        )
    meta = checkpoint.get("meta")
    meta = meta if isinstance(meta, Mapping) else {}
    method = authors_method(str(meta.get("config", "")))
    try:
        converted, dropped = convert_authors_state_dict(state, method)
    except ValueError as error:
        raise UserError(f"cannot convert {src}: {error}") from error
    target.parent.mkdir(parents=True, exist_ok=True)
    torch.save({"state_dict": converted, "meta": _meta(meta, method)}, target)
    used = tuple(name for name in state if name not in set(dropped))
    print_log(f"{src} is a checkpoint of {method or NO_METHOD}", logger="current")
    for what, names in (
        ("used", used),
        ("dropped, because they do not affect the output", dropped),
        ("missed, computed by the model from the class names", MADE_BY_THE_MODEL),
    ):
        print_log(f"{len(names)} tensors {what}: {_summary(names)}", logger="current")
    print_log(f"written to {target}", logger="current")
    return Conversion(method, used, tuple(dropped), MADE_BY_THE_MODEL)


def authors_method(config: str) -> str | None:
    """The method of an authors' training config, recognized by the segmentor it names.

    Args:
        config: The text of the config.

    Returns:
        ``"OTSeg"`` or ``"ZegCLIP"``; None if it names neither, or both.
    """
    named = [name for name in DECODERS if re.search(rf"""type\s*=\s*['"]{name}['"]""", config)]
    return named[0] if len(named) == 1 else None


def convert_authors_state_dict(
    state: Mapping[str, Tensor], method: str | None = None
) -> tuple[dict[str, Tensor], list[str]]:
    """Rename an authors' OTSeg or ZegCLIP state dict.

    Args:
        state: Names and tensors as the authors' code saves them.
        method: ``"OTSeg"`` or ``"ZegCLIP"``; if given, the other method's head refuses the result.

    Returns:
        The state dict of an ``EncoderDecoder`` with ``CLIPBackbone``, ``DLFANeck`` and
        ``MPSAHead`` or ``ZegCLIPHead``, without the text embeddings; and the names of the dropped
        tensors, which do not affect the output. The state dict includes the image tower, its
        fingerprint and activation, and the flag that makes the backbone count the class embedding
        twice.

    Raises:
        UserError: If a tensor is missing, unknown, or of a shape that does not fit the others.
    """
    layers = [int(match[1]) for name in state if (match := LAYER.fullmatch(name))]
    last = max(layers, default=-1)
    check_authors_tensors(state, [name for name in state if not _unused(name, last)])
    converted: dict[str, Tensor] = {}
    dropped: list[str] = []
    for name, tensor in state.items():
        new = _convert_name(name, last)
        if new is None:
            dropped.append(name)
        else:
            converted[new] = tensor
    # One set of tokens per layer; the authors store the first layer's separately.
    prompts = [converted.pop(f"backbone.visual_prompts.{part}") for part in ("shallow", "deep")]
    converted["backbone.visual_prompts.embeddings"] = torch.cat(prompts)
    tower = {name.removeprefix(CLIP): t for name, t in converted.items() if name.startswith(CLIP)}
    converted["backbone.clip.fingerprint"] = tensors_fingerprint(tower)
    converted["backbone.clip.quick_gelu"] = torch.tensor(1, dtype=torch.uint8)  # OpenAI's CLIP
    converted["backbone.class_embedding_times"] = torch.tensor(2)
    if method is not None:
        converted["decode_head.decoder.kind_name"] = encode_kind(DECODERS[method].kind)
    return converted, dropped


def _unused(name: str, last: int) -> bool:
    """Whether a tensor does not affect the output; ``last`` is the index of the last layer."""
    if UNUSED.match(name):
        return True
    match = LAYER.fullmatch(name)
    return bool(match and int(match[1]) == last and UNUSED_IN_LAST_LAYER.match(match[2]))


def _convert_name(name: str, last: int) -> str | None:
    """This package's name of an authors' tensor; None if it does not affect the output."""
    if _unused(name, last):
        return None
    if match := LAYER.fullmatch(name):
        index = int(match[1])
        stem, kind = match[2].rsplit(".", 1)
        new = LAYER_PARTS[stem]
        if index == last:
            return f"decode_head.decoder.last.{new.removeprefix('attention.')}.{kind}"
        return f"decode_head.decoder.layers.{index}.{new}.{kind}"
    if name.startswith("decode_head.q_proj."):
        return name.replace("decode_head.q_proj.", "neck.descriptor.linear.")
    if name == "backbone.prompt_embeddings":
        return "backbone.visual_prompts.shallow"
    if name == "backbone.deep_prompt_embeddings":
        return "backbone.visual_prompts.deep"
    part = name.removeprefix("backbone.")
    head, _, rest = part.partition(".")
    return f"backbone.{BACKBONE_PARTS[head]}.{rest}" if head in BACKBONE_PARTS else CLIP + part


def _meta(meta: Mapping[str, Any], method: str | None) -> dict[str, Any]:
    """The metadata for mmseg's tools: class names and colors, if present."""
    kept: dict[str, Any] = {"converted_from": f"{method or NO_METHOD}, the authors' code"}
    if meta.get("CLASSES") is not None:
        kept["dataset_meta"] = {"classes": tuple(meta["CLASSES"]), "palette": meta.get("PALETTE")}
    return kept


def _summary(names: tuple[str, ...] | list[str]) -> str:
    """The names; those that differ only in a number are listed once."""
    return ", ".join(dict.fromkeys(re.sub(r"\.\d+\.", ".*.", name) for name in names)) or "none"
