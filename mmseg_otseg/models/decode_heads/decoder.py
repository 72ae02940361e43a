"""What the decoders of all methods have in common."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from mmseg_otseg.errors import UserError


class DecoderLayer(nn.Module):
    """A decoder layer without its attention: values, feed-forward, residuals and LayerNorms.

    Each method derives a layer of its own, computes what its queries attend to, and passes the
    result to :meth:`update`.

    Args:
        attention: Matches queries and patches; has the linear layers ``query`` and ``key``.
        embed_dim: Width D; the feed-forward is 4 D wide.
        dropout: Dropout on the attention, on both residual branches and inside the feed-forward.
    """

    def __init__(self, attention: nn.Module, embed_dim: int, dropout: float) -> None:
        super().__init__()
        self.attention = attention
        self.value = nn.Linear(embed_dim, embed_dim)
        self.proj = nn.Linear(embed_dim, embed_dim)
        self.norm1 = nn.LayerNorm(embed_dim)
        self.feed_forward = nn.Sequential(
            nn.Linear(embed_dim, 4 * embed_dim),
            nn.ReLU(inplace=True),
            nn.Dropout(dropout),
            nn.Linear(4 * embed_dim, embed_dim),
        )
        self.norm2 = nn.LayerNorm(embed_dim)
        self.dropout = nn.Dropout(dropout)

    def update(self, queries: Tensor, attended: Tensor) -> Tensor:
        """Refine queries (..., D) by the values that each of them attends to, same shape."""
        queries = self.norm1(queries + self.dropout(self.proj(attended)))
        return self.norm2(queries + self.dropout(self.feed_forward(queries)))


class Decoder(nn.Module):
    """Layers that refine the queries, and a last one that only makes a map.

    The last layer has neither values nor a feed-forward, because nothing would read their output.

    The decoders of different methods have parameters of the same names and shapes, but the weights
    of one mean nothing to another. A decoder's state dict therefore holds its ``kind``, and one of
    another kind is refused.

    Args:
        layers: All layers but the last.
        last: What makes the map of the last layer.
    """

    kind: ClassVar[str]
    kind_name: Tensor

    def __init__(self, layers: Iterable[DecoderLayer], last: nn.Module) -> None:
        super().__init__()
        self.layers = nn.ModuleList(layers)
        self.last = last
        self.register_buffer("kind_name", encode_kind(self.kind))
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.trunc_normal_(module.weight, std=0.02)
                nn.init.zeros_(module.bias)

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any) -> None:
        # A converted checkpoint may not say which method it comes from.
        found = state_dict.setdefault(prefix + "kind_name", self.kind_name)
        if not torch.equal(found.cpu(), self.kind_name.cpu()):
            theirs = bytes(found.flatten().byte().tolist()).decode("ascii", "replace")[:100]
            raise UserError(
                f"the checkpoint's decoder is of the kind {theirs!r}, the model's {self.kind!r}: "
                "use the config that the checkpoint was trained with"
            )
        super()._load_from_state_dict(state_dict, prefix, *args)


def encode_kind(kind: str) -> Tensor:
    """The name of a kind of decoder as a state dict holds it: its bytes, uint8."""
    return torch.tensor(list(kind.encode()), dtype=torch.uint8)
