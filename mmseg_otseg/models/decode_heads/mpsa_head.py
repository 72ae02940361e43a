"""OTSeg's head: Multi-Prompts Sinkhorn (MPS) score maps, and a decoder of MPS attention (MPSA)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F
from mmseg.registry import MODELS
from torch import Tensor, nn

from mmseg_otseg.errors import UserError, check_option
from mmseg_otseg.ops import (
    multi_prompt_plan,
    multi_prompt_score,
    pixel_prompt_similarity,
    transport_score,
)
from mmseg_otseg.structures.features import AlignedFeatures

from .decoder import Decoder, DecoderLayer
from .zero_shot_head import ZeroShotHead

PREDICTIONS = ("ensemble", "decoder", "score")


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

    def forward(self, queries: Tensor, patches: Tensor) -> tuple[Tensor, Tensor]:
        """Match prompts (B, K, N, D) and patches (B, M, D).

        Returns:
            The map, shape (B, K, M), logits, and the plan behind it, shape (B, K, N, M), total
            mass 1.
        """
        similarity = self.similarity(queries, patches)
        plan = multi_prompt_plan(similarity, self.transport, self.epsilon)
        return transport_score(similarity, plan), plan

    def similarity(self, queries: Tensor, patches: Tensor) -> Tensor:
        """Cosine similarities of projected prompts and patches, shape (B, K, N, M)."""
        query = F.normalize(self.query(queries), dim=-1)
        key = self.key(patches)
        # Dividing the products by the keys' lengths makes the keys unit length without a copy.
        length = torch.linalg.vector_norm(key, dim=-1).clamp_min(1e-12)
        return pixel_prompt_similarity(key, query) * (1 / length)[:, None, None]


class MPSADecoderLayer(DecoderLayer):
    """Multi-Prompts Sinkhorn Attention and a feed-forward, with residual and LayerNorm after each.

    ``dropout`` also acts on the plan. The arguments are those of :class:`DecoderLayer`; the
    attention is an :class:`MPSAMap`.

    Source:
        OTSeg (arXiv 2403.14183), section 3.3.
    """

    def forward(self, queries: Tensor, patches: Tensor) -> tuple[Tensor, Tensor]:
        """Refine queries (B, K, N, D) by the patches (B, M, D) they attend to.

        Returns:
            The refined queries, and the map, shape (B, K, M), logits.
        """
        class_map, plan = self.attention(queries, patches)
        return self.update(queries, self.attend(plan, patches)), class_map

    def attend(self, plan: Tensor, patches: Tensor) -> Tensor:
        """Values (B, K, N, D) of the patches (B, M, D), summed by the plan (B, K, N, M)."""
        rows = self.dropout(plan).to(patches.dtype).flatten(1, 2)  # (B, K * N, M)
        # With fewer prompts than patches, summing before the Linear is cheaper than after it.
        # An exported graph does so in any case: its number of classes is not known yet.
        if torch.compiler.is_exporting() or rows.shape[1] < rows.shape[2]:
            attended = F.linear(rows @ patches, self.value.weight)
            attended = attended + rows.sum(-1, keepdim=True) * self.value.bias
        else:
            attended = rows @ self.value(patches)
        return attended.unflatten(1, plan.shape[1:3])


class MPSADecoder(Decoder):
    """Layers of Multi-Prompts Sinkhorn Attention whose maps gate each other.

    ``logits = A_L * prod_{l<L} sigmoid(A_l)^(1/(L-1))`` for the maps A_1..A_L.

    Args:
        embed_dim: Width D.
        num_layers: Layers L, at least 1.
        dropout: See :class:`MPSADecoderLayer`.
        transport, epsilon: See :class:`MPSAMap`.

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
        *maps, last = (MPSAMap(embed_dim, transport, epsilon) for _ in range(num_layers))
        super().__init__((MPSADecoderLayer(each, embed_dim, dropout) for each in maps), last)

    def forward(self, queries: Tensor, patches: Tensor) -> Tensor:
        """Class maps (B, K, M), logits, of queries (B, K, N, D) and unit patches (B, M, D)."""
        patches = patches.contiguous()  # copied once, and not by every product
        log_gates = []
        for layer in self.layers:
            queries, class_map = layer(queries, patches)
            log_gates.append(F.logsigmoid(class_map))
        class_map, _ = self.last(queries, patches)
        if not log_gates:
            return class_map
        return class_map * torch.stack(log_gates).mean(0).exp()


@MODELS.register_module()
class MPSAHead(ZeroShotHead):
    """Score maps by Multi-Prompts Sinkhorn, decoder maps by Multi-Prompts Sinkhorn Attention.

    Args:
        num_classes, embed_dim: See :class:`ZeroShotHead`.
        num_levels: Levels the neck returns; the score maps of several are averaged with learned
            weights.
        decoder_layers: Layers of the MPSA decoder; 0 is no decoder.
        transport: How prompts and patches are matched in the decoder, and in the score map too
            unless ``score_transport`` is given; see :func:`~mmseg_otseg.ops.multi_prompt_plan`.
        score_transport: How they are matched in the score map; None is the same as ``transport``.
        epsilon: Entropy weight of the plans in both.
        dropout: Dropout in the decoder.
        predict_from: ``"ensemble"`` of both maps (OTSeg+), ``"decoder"`` (OTSeg) or ``"score"``.
        kwargs: See :class:`ZeroShotHead`.

    Attributes:
        score_transport: What the score map uses, whichever option it came from. Each layer of the
            decoder has its own ``transport``.

    Raises:
        UserError: If an option is unknown.

    Source:
        OTSeg (arXiv 2403.14183), sections 3.2 to 3.4.
    """

    def __init__(
        self,
        num_classes: int,
        embed_dim: int,
        num_levels: int = 1,
        decoder_layers: int = 3,
        transport: str = "sinkhorn",
        score_transport: str | None = None,
        epsilon: float = 0.05,
        dropout: float = 0.1,
        predict_from: str = "ensemble",
        **kwargs: Any,
    ) -> None:
        check_option("predict_from", predict_from, PREDICTIONS)
        if not decoder_layers and predict_from != "score":
            raise UserError("without a decoder (decoder_layers=0) set predict_from='score'")
        super().__init__(num_classes, embed_dim, num_levels, **kwargs)
        self.score_transport, self.epsilon = score_transport or transport, epsilon
        self.predict_from = predict_from
        self.level_logits = nn.Parameter(torch.zeros(num_levels)) if num_levels > 1 else None
        self.decoder = (
            MPSADecoder(embed_dim, decoder_layers, dropout, transport, epsilon)
            if decoder_layers
            else None
        )

    def class_maps(self, queries: Tensor, levels: list[Tensor]) -> dict[str, Tensor]:
        """``score``, the map of all levels, and ``decoder``, that of the last one, if there is one.

        See :meth:`ZeroShotHead.class_maps`.
        """
        unit = F.normalize(queries, dim=-1)
        options = (self.score_transport, self.epsilon)
        scores = [
            multi_prompt_score(pixel_prompt_similarity(patches, unit), *options)
            for patches in levels
        ]
        maps = {"score": scores[0]}
        if self.level_logits is not None:
            weights = self.level_logits.softmax(0).to(scores[0].dtype)
            maps["score"] = torch.einsum("l,lbkm->bkm", weights, torch.stack(scores))
        if self.decoder is not None:
            maps["decoder"] = self.decoder(queries, levels[-1])
        return maps

    def predicting_map(self, maps: Mapping[str, Tensor]) -> Tensor:
        """The map named by ``predict_from``, see :meth:`ZeroShotHead.predicting_map`."""
        if self.predict_from == "ensemble":
            return super().predicting_map(maps)
        return maps[self.predict_from]

    def plan(self, inputs: AlignedFeatures) -> Tensor:
        """The transport plan behind the score map of the last level, from the neck's output.

        Returns:
            What each prompt of each class takes from each patch, shape (B, K, N, H, W), of total
            mass 1 per (image, class).
        """
        patches = inputs.pixels[-1]
        queries = F.normalize(inputs.queries, dim=-1)
        similarity = pixel_prompt_similarity(patches.flatten(2).transpose(1, 2), queries)
        plan = multi_prompt_plan(similarity, self.score_transport, self.epsilon)
        return plan.unflatten(-1, patches.shape[-2:])
