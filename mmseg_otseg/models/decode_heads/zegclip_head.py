"""ZegCLIP's head: one map of a plain multi-head attention decoder."""

from __future__ import annotations

from typing import Any

import torch.nn.functional as F
from mmseg.registry import MODELS
from torch import Tensor, nn

from mmseg_otseg.errors import UserError
from mmseg_otseg.ops import pixel_prompt_similarity

from .decoder import Decoder, DecoderLayer
from .zero_shot_head import ZeroShotHead


class MultiHeadMap(nn.Module):
    """Scaled dot products of queries and patches, averaged over attention heads and prompts.

    Args:
        embed_dim: Width D.
        num_heads: Attention heads h, each of width D/h.
    """

    def __init__(self, embed_dim: int, num_heads: int) -> None:
        super().__init__()
        self.query = nn.Linear(embed_dim, embed_dim)
        self.key = nn.Linear(embed_dim, embed_dim)
        self.num_heads = num_heads
        # The heads' products add up to the product of the whole vectors: their mean, each over
        # sqrt(D/h), is that over h sqrt(D/h).
        self.scale = (embed_dim * num_heads) ** -0.5

    def forward(self, queries: Tensor, patches: Tensor) -> Tensor:
        """The map (B, K, M), logits, of prompts (B, K, N, D) and patches (B, M, D)."""
        query = self.query(queries).mean(2, keepdim=True)
        return pixel_prompt_similarity(self.key(patches), self.scale * query).squeeze(2)


class MultiHeadLayer(DecoderLayer):
    """Multi-head attention to the patches and a feed-forward; no self-attention.

    The arguments are those of :class:`DecoderLayer`; the attention is a :class:`MultiHeadMap`.
    """

    attention: MultiHeadMap

    def forward(self, queries: Tensor, patches: Tensor) -> Tensor:
        """Refine queries (B, K, N, D) by the patches (B, M, D) they attend to."""
        heads = self.attention.num_heads
        query, key, value = (
            tokens.unflatten(-1, (heads, -1)).transpose(1, 2)  # (B, h, tokens, D/h)
            for tokens in (
                self.attention.query(queries.flatten(1, 2)),
                self.attention.key(patches),
                self.value(patches),
            )
        )
        dropout = self.dropout.p if self.training else 0.0
        attended = F.scaled_dot_product_attention(query, key, value, dropout_p=dropout)
        attended = attended.transpose(1, 2).flatten(2)  # (B, K * N, D)
        return self.update(queries, attended.unflatten(1, queries.shape[1:3]))


class MultiHeadDecoder(Decoder):
    """ZegCLIP's decoder: layers of multi-head attention, and the map of the last one.

    Args:
        embed_dim: Width D.
        num_layers: Layers, at least 1.
        num_heads: Attention heads h; they divide D.
        dropout: See :class:`DecoderLayer`.

    Raises:
        UserError: If the heads do not divide the width.

    Source:
        ZegCLIP (arXiv 2212.03588), section 3.3.
    """

    kind = "multi-head attention"

    def __init__(
        self, embed_dim: int, num_layers: int = 3, num_heads: int = 8, dropout: float = 0.1
    ) -> None:
        if embed_dim % num_heads:
            raise UserError(
                f"{num_heads} attention heads do not divide CLIP's joint width {embed_dim}"
            )
        *maps, last = (MultiHeadMap(embed_dim, num_heads) for _ in range(num_layers))
        super().__init__((MultiHeadLayer(each, embed_dim, dropout) for each in maps), last)

    def forward(self, queries: Tensor, patches: Tensor) -> Tensor:
        """Class maps (B, K, M), logits, of queries (B, K, N, D) and unit-length patches (B, M, D).

        The maps of the N prompts of a class are averaged.
        """
        patches = patches.contiguous()  # copied once, and not by every product
        for layer in self.layers:
            queries = layer(queries, patches)
        return self.last(queries, patches)


@MODELS.register_module()
class ZegCLIPHead(ZeroShotHead):
    """The class maps of ZegCLIP's decoder.

    Args:
        num_classes, embed_dim: See :class:`ZeroShotHead`.
        decoder_layers: Layers of the decoder, at least 1.
        decoder_heads: Attention heads of the decoder; they divide CLIP's joint width.
        dropout: Dropout in the decoder.
        kwargs: See :class:`ZeroShotHead`.

    Raises:
        UserError: If the heads do not divide the width, or there are several levels.

    Source:
        ZegCLIP (arXiv 2212.03588), section 3.
    """

    def __init__(
        self,
        num_classes: int,
        embed_dim: int,
        decoder_layers: int = 3,
        decoder_heads: int = 8,
        dropout: float = 0.1,
        **kwargs: Any,
    ) -> None:
        super().__init__(num_classes, embed_dim, **kwargs)
        if self.num_levels != 1:
            raise UserError(f"ZegCLIP's decoder reads one level, got num_levels={self.num_levels}")
        self.decoder = MultiHeadDecoder(embed_dim, decoder_layers, decoder_heads, dropout)

    def class_maps(self, queries: Tensor, levels: list[Tensor]) -> dict[str, Tensor]:
        """The map of the decoder, see :meth:`ZeroShotHead.class_maps`."""
        return {"decoder": self.decoder(queries, levels[0])}
