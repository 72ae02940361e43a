"""Where the words of a class name stand among the learned tokens of a prompt."""

from __future__ import annotations

import torch
from torch import Tensor

POSITIONS = ("end", "middle", "front")


def prompt_layout(tokens: Tensor, num_context: int, position: str) -> tuple[Tensor, Tensor]:
    """Which token stands at each place of a prompt.

    A prompt is the start token, the class name with M context tokens before, after or around it, a
    period, and the end token.

    Args:
        tokens: Start token, name, period and end token of every class, then zeros, shape (K, T),
            int64. The end token has the highest index.
        num_context: Context tokens, M.
        position: Where the class name stands: ``"end"`` (after the context), ``"front"`` (before
            it) or ``"middle"`` (between its halves).

    Returns:
        Two int64 tensors. Layout, shape (K, T + M): an index below T means that token of the class,
        index T + i the context token i. Ends, shape (K,): the place of the end token.
    """
    total = tokens.shape[1]
    ends = tokens.argmax(dim=-1) + num_context
    before = {"end": num_context, "middle": num_context // 2, "front": 0}[position]
    place = torch.arange(total + num_context, device=tokens.device)
    stop = ends[:, None] - num_context - 1  # place of the period among the class's tokens
    context_first = torch.where(place == 0, 0, total + place - 1)
    context_last = torch.where(
        place < stop + num_context, total + place - stop, place - num_context
    )
    name = torch.where(place < before + stop, place - before, context_last)
    return torch.where(place <= before, context_first, name), ends
