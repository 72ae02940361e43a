"""The OTSeg authors' parameter names, in terms of this package's."""

from __future__ import annotations

import re
from collections.abc import Mapping

import torch
from torch import Tensor

# Tensors of the authors' checkpoints that reach no output: self-attention and its norm are never called,
# the criterion's class weights never read, and of the last decoder layer only the map is used.
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


def convert_authors_state_dict(state: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], list[str]]:
    """Rename an authors' OTSeg state dict.

    Args:
        state: Names and tensors as the authors' code saves them.

    Returns:
        The state dict of an ``EncoderDecoder`` with ``CLIPBackbone(double_class_embedding=True)``, ``DLFANeck``
        and ``MPSAHead``, without the text embeddings; and the names that were dropped, which reach no output.

    Raises:
        ValueError: If a name is not one of the authors'.
    """
    layers = [int(match[1]) for name in state if (match := LAYER.fullmatch(name))]
    last = max(layers, default=-1)
    converted: dict[str, Tensor] = {}
    dropped: list[str] = []
    for name, tensor in state.items():
        new = _convert_name(name, last)
        if new is None:
            dropped.append(name)
        else:
            converted[new] = tensor
    shallow = converted.pop("backbone.visual_prompts.shallow", None)
    deep = converted.pop("backbone.visual_prompts.deep", None)
    if shallow is not None:
        # One set of tokens per layer; the authors keep the first layer's apart.
        converted["backbone.visual_prompts.embeddings"] = (
            shallow if deep is None else torch.cat([shallow, deep])
        )
    return converted, dropped


def _convert_name(name: str, last: int) -> str | None:
    """The package's name of an authors' tensor, or None if it reaches no output."""
    if UNUSED.match(name):
        return None
    if match := LAYER.fullmatch(name):
        index, part = int(match[1]), match[2]
        if index == last and UNUSED_IN_LAST_LAYER.match(part):
            return None
        stem, kind = part.rsplit(".", 1)
        if stem not in LAYER_PARTS:
            raise ValueError(f"{name!r} is no tensor of the authors' OTSeg")
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
    if name.startswith("backbone."):
        part = name.removeprefix("backbone.")
        head, _, rest = part.partition(".")
        if head in BACKBONE_PARTS:
            return f"backbone.{BACKBONE_PARTS[head]}.{rest}"
        return f"backbone.clip.module.{part}"
    raise ValueError(f"{name!r} is no tensor of the authors' OTSeg")
