"""The tensors in the authors' OTSeg and ZegCLIP checkpoints, and checks of their shapes."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence

from torch import Tensor

from mmseg_otseg.errors import UserError

# Letters stand for sizes: C width of the image tower, D joint width, P positions (class token and
# patch grid), s patch side, n visual prompt tokens. A number in front of a letter multiplies it.
# "L-1" is one less than the number of layers of the image tower.
BLOCK_SHAPES = {
    "attn.in_proj_weight": "3C C",
    "attn.in_proj_bias": "3C",
    "attn.out_proj.weight": "C C",
    "attn.out_proj.bias": "C",
    "ln_1.weight": "C",
    "ln_1.bias": "C",
    "mlp.c_fc.weight": "4C C",
    "mlp.c_fc.bias": "4C",
    "mlp.c_proj.weight": "C 4C",
    "mlp.c_proj.bias": "C",
    "ln_2.weight": "C",
    "ln_2.bias": "C",
}
BACKBONE_SHAPES = {
    "class_embedding": "C",
    "positional_embedding": "P C",
    "proj": "C D",
    "conv1.weight": "C 3 s s",
    "ln_pre.weight": "C",
    "ln_pre.bias": "C",
    "ln_post.weight": "C",
    "ln_post.bias": "C",
    "prompt_embeddings": "1 n C",
    "deep_prompt_embeddings": "L-1 n C",
    "prompt_proj.weight": "C C",
    "prompt_proj.bias": "C",
    "prompt_norm.weight": "C",
    "prompt_norm.bias": "C",
}
MAP_SHAPES = {
    "multihead_attn.q.weight": "D D",
    "multihead_attn.q.bias": "D",
    "multihead_attn.k.weight": "D D",
    "multihead_attn.k.bias": "D",
}
LAYER_SHAPES = {
    **MAP_SHAPES,
    "multihead_attn.v.weight": "D D",
    "multihead_attn.v.bias": "D",
    "multihead_attn.proj.weight": "D D",
    "multihead_attn.proj.bias": "D",
    "linear1.weight": "4D D",
    "linear1.bias": "4D",
    "linear2.weight": "D 4D",
    "linear2.bias": "D",
    "norm2.weight": "D",
    "norm2.bias": "D",
    "norm3.weight": "D",
    "norm3.bias": "D",
}
HEAD_SHAPES = {"q_proj.weight": "D 2D", "q_proj.bias": "D"}

BLOCK = re.compile(r"backbone\.transformer\.resblocks\.(\d+)\.")
LAYER = re.compile(r"decode_head\.decoder_1\.layers\.(\d+)\.")
SIZE = re.compile(r"(\d*)([A-Za-z])")


def check_authors_tensors(state: Mapping[str, Tensor], used: Sequence[str]) -> None:
    """Check that a state dict has exactly the tensors the model needs, with consistent shapes.

    The sizes are taken from the file: each is the one on which most of its tensors agree.

    Args:
        state: Names and tensors of an authors' checkpoint.
        used: The names of the tensors that affect the model's output.

    Raises:
        UserError: If tensors are missing, unknown or of the wrong shape; the message names them.
    """
    blocks = [int(match[1]) for name in used if (match := BLOCK.match(name))]
    layers = [int(match[1]) for name in used if (match := LAYER.match(name))]
    shapes = dict(_expected(max(blocks, default=-1) + 1, max(layers, default=-1) + 1))
    problems = [f"{name} is not in OTSeg or ZegCLIP" for name in used if name not in shapes]
    problems += [f"{name} is missing" for name in shapes if name not in state]
    if not problems:
        sizes, problems = _agree_on_sizes(state, shapes)
        for name, shape in shapes.items():
            expected = tuple(_evaluate(size, sizes, len(set(blocks))) for size in shape.split())
            if not problems and tuple(state[name].shape) != expected:
                problems.append(
                    f"{name} has shape {tuple(state[name].shape)}, but the file's other tensors "
                    f"require {expected}"
                )
        positions = len(state["backbone.positional_embedding"])
        if not problems and round((positions - 1) ** 0.5) ** 2 != positions - 1:
            problems.append(
                f"backbone.positional_embedding has {positions} positions, which is not a class "
                "token plus a square grid"
            )
    if problems:
        more = f"; and {len(problems) - 5} more" if len(problems) > 5 else ""
        raise UserError(
            "this is not a checkpoint of OTSeg's or ZegCLIP's authors: "
            f"{'; '.join(problems[:5])}{more}"
        )


def _expected(blocks: int, layers: int) -> Iterator[tuple[str, str]]:
    """Name and shape, in letters, of every tensor the model needs."""
    for name, shape in BACKBONE_SHAPES.items():
        yield f"backbone.{name}", shape
    for index in range(max(blocks, 1)):
        for name, shape in BLOCK_SHAPES.items():
            yield f"backbone.transformer.resblocks.{index}.{name}", shape
    for index in range(max(layers, 1)):
        # Only the attention map of the last layer is used.
        for name, shape in (LAYER_SHAPES if index < layers - 1 else MAP_SHAPES).items():
            yield f"decode_head.decoder_1.layers.{index}.{name}", shape
    for name, shape in HEAD_SHAPES.items():
        yield f"decode_head.{name}", shape


def _agree_on_sizes(
    state: Mapping[str, Tensor], shapes: Mapping[str, str]
) -> tuple[dict[str, int], list[str]]:
    """The size of each letter by majority, and messages for letters without a majority."""
    votes: dict[str, dict[str, set[int]]] = {}
    for name, shape in shapes.items():
        letters = shape.split()
        if state[name].dim() != len(letters):
            continue
        for letter, size in zip(letters, state[name].shape, strict=True):
            if match := SIZE.fullmatch(letter):
                votes.setdefault(match[2], {}).setdefault(name, set()).add(
                    size // int(match[1] or 1)
                )
    sizes, problems = {}, []
    for letter, voters in votes.items():
        ranked = Counter(size for cast in voters.values() for size in cast).most_common(2)
        sizes[letter] = ranked[0][0]
        if len(ranked) == 2 and ranked[0][1] == ranked[1][1]:
            named = " and ".join(f"{name} {tuple(state[name].shape)}" for name in voters)
            problems.append(f"the shapes contradict each other: {named}")
    return sizes, problems


def _evaluate(size: str, sizes: Mapping[str, int], blocks: int) -> int:
    """A size in letters as a number."""
    if size == "L-1":
        return blocks - 1
    match = SIZE.fullmatch(size)
    return int(match[1] or 1) * sizes.get(match[2], -1) if match else int(size)
