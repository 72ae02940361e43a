"""Multi-Prompts Sinkhorn Attention and the decoder built of it."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmseg_otseg.ops import (
    multi_prompt_plan,
    multi_prompt_score,
    pixel_prompt_similarity,
    transport_score,
)

from .decoder import Decoder, DecoderLayer


class MPSAMap(nn.Module):
    """Where the prompts of each class attend: the part of MPSA that makes a map.

    Args:
        embed_dim: Width D.
        transport: How the plan is made, see :func:`~mmseg_otseg.ops.multi_prompt_plan`.
        epsilon: Entropy weight of the plan.
    """

    def __init__(self, embed_dim: int, transport: str = "sinkhorn", epsilon: float = 0.05) -> None:
        super().__init__()
        self.query = nn.Linear(embed_dim, embed_dim)
        self.key = nn.Linear(embed_dim, embed_dim)
        self.transport, self.epsilon = transport, epsilon

    def forward(self, queries: Tensor, pixels: Tensor) -> tuple[Tensor, Tensor]:
        """Match prompts and pixels.

        Args:
            queries: Shape (B, K, N, D).
            pixels: Shape (B, M, D).

        Returns:
            The map, shape (B, K, M), logits, and the plan behind it, shape (B, K, N, M), total
            mass 1.
        """
        similarity = self.similarity(queries, pixels)
        plan = multi_prompt_plan(similarity, self.transport, self.epsilon)
        return transport_score(similarity, plan), plan

    def score(self, queries: Tensor, pixels: Tensor) -> Tensor:
        """The map alone, see :meth:`forward`."""
        return multi_prompt_score(self.similarity(queries, pixels), self.transport, self.epsilon)

    def similarity(self, queries: Tensor, pixels: Tensor) -> Tensor:
        """Cosine similarities of projected prompts and pixels, shape (B, K, N, M)."""
        query = F.normalize(self.query(queries), dim=-1)
        key = self.key(pixels)
        # Dividing the products by the keys' lengths makes the keys unit length without a copy.
        length = torch.linalg.vector_norm(key, dim=-1).clamp_min(1e-12)
        return pixel_prompt_similarity(key, query) * (1 / length)[:, None, None]


class MPSADecoderLayer(DecoderLayer):
    """Multi-Prompts Sinkhorn Attention and a feed-forward, with residual and LayerNorm after each.

    Args:
        embed_dim: Width D; the feed-forward is 4 D wide.
        dropout: Dropout on the plan, on both residual branches and inside the feed-forward.
        transport: How the plan is made, see :func:`~mmseg_otseg.ops.multi_prompt_plan`.
        epsilon: Entropy weight of the plan.

    Source:
        OTSeg (arXiv 2403.14183), section 3.3.
    """

    def __init__(
        self,
        embed_dim: int,
        dropout: float = 0.1,
        transport: str = "sinkhorn",
        epsilon: float = 0.05,
    ) -> None:
        super().__init__(MPSAMap(embed_dim, transport, epsilon), embed_dim, dropout)

    def forward(self, queries: Tensor, pixels: Tensor) -> tuple[Tensor, Tensor]:
        """Refine the queries by what they attend to.

        Args:
            queries: Shape (B, K, N, D).
            pixels: Shape (B, M, D).

        Returns:
            The refined queries, shape (B, K, N, D), and the map, shape (B, K, M), logits.
        """
        class_map, plan = self.attention(queries, pixels)
        return self.update(queries, self.attend(plan, pixels)), class_map

    def attend(self, plan: Tensor, pixels: Tensor) -> Tensor:
        """Values of the pixels, summed by the plan.

        Args:
            plan: Shape (B, K, N, M).
            pixels: Shape (B, M, D).

        Returns:
            What each prompt attends to, shape (B, K, N, D).
        """
        rows = self.dropout(plan).to(pixels.dtype).flatten(1, 2)  # (B, K * N, M)
        # An exported graph takes any number of classes, so it cannot choose.
        if torch.compiler.is_exporting() or rows.shape[1] < rows.shape[2]:
            # Fewer prompts than pixels: summing pixels before the Linear is cheaper than after it.
            attended = F.linear(rows @ pixels, self.value.weight)
            attended = attended + rows.sum(-1, keepdim=True) * self.value.bias
        else:
            attended = rows @ self.value(pixels)
        return attended.unflatten(1, plan.shape[1:3])


class MPSADecoder(Decoder):
    """Layers of Multi-Prompts Sinkhorn Attention whose maps gate each other.

    ``logits = A_L * prod_{l<L} sigmoid(A_l)^(1/(L-1))`` for the maps A_1..A_L.

    Args:
        embed_dim: Width D.
        num_layers: Layers L, at least 1.
        dropout: See :class:`MPSADecoderLayer`.
        transport: How the plans are made, see :func:`~mmseg_otseg.ops.multi_prompt_plan`.
        epsilon: Entropy weight of the plans.

    Source:
        OTSeg (arXiv 2403.14183), section 3.3.
    """

    kind = "multi-prompts Sinkhorn attention"
    last: MPSAMap

    def __init__(
        self,
        embed_dim: int,
        num_layers: int = 3,
        dropout: float = 0.1,
        transport: str = "sinkhorn",
        epsilon: float = 0.05,
    ) -> None:
        super().__init__(
            (
                MPSADecoderLayer(embed_dim, dropout, transport, epsilon)
                for _ in range(num_layers - 1)
            ),
            MPSAMap(embed_dim, transport, epsilon),
        )

    def forward(self, queries: Tensor, pixels: Tensor) -> Tensor:
        """Decode class maps.

        Args:
            queries: Shape (B, K, N, D).
            pixels: Shape (B, M, D), unit length.

        Returns:
            Class maps, shape (B, K, M), logits.
        """
        pixels = pixels.contiguous()  # copied once, and not by every product
        log_gates = []
        for layer in self.layers:
            queries, class_map = layer(queries, pixels)
            log_gates.append(F.logsigmoid(class_map))
        class_map = self.last.score(queries, pixels)
        if not log_gates:
            return class_map
        return class_map * torch.stack(log_gates).mean(0).exp()
