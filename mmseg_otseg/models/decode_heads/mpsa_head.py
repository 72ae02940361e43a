"""OTSeg's head: Multi-Prompts Sinkhorn score maps and the MPSA decoder."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F
from mmseg.registry import MODELS
from torch import Tensor, nn

from mmseg_otseg.errors import UserError
from mmseg_otseg.ops import multi_prompt_plan, multi_prompt_score, pixel_prompt_similarity
from mmseg_otseg.structures.features import AlignedFeatures

from .mpsa import MPSADecoder
from .zero_shot_head import ZeroShotHead

PREDICTIONS = ("ensemble", "decoder", "score")


@MODELS.register_module()
class MPSAHead(ZeroShotHead):
    """Score maps by Multi-Prompts Sinkhorn, decoder maps by Multi-Prompts Sinkhorn Attention.

    Args:
        num_classes: Number of classes predicted in testing, seen and unseen.
        num_levels: Levels the neck returns; the score maps of several are averaged with learned
            weights.
        decoder_layers: Layers of the MPSA decoder; 0 is no decoder.
        transport: How prompts and pixels are matched in the decoder, and in the score map too
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
        num_levels: int = 1,
        decoder_layers: int = 3,
        transport: str = "sinkhorn",
        score_transport: str | None = None,
        epsilon: float = 0.05,
        dropout: float = 0.1,
        predict_from: str = "ensemble",
        **kwargs: Any,
    ) -> None:
        if predict_from not in PREDICTIONS:
            raise UserError(
                f"predict_from must be one of {', '.join(PREDICTIONS)}, got {predict_from!r}"
            )
        if not decoder_layers and predict_from != "score":
            raise UserError("without a decoder (decoder_layers=0) set predict_from='score'")
        super().__init__(num_classes, num_levels=num_levels, **kwargs)
        self.score_transport, self.epsilon = score_transport or transport, epsilon
        self.predict_from = predict_from
        self.level_logits = nn.Parameter(torch.zeros(num_levels)) if num_levels > 1 else None
        self.decoder = (
            MPSADecoder(self.channels, decoder_layers, dropout, transport, epsilon)
            if decoder_layers
            else None
        )

    def class_maps(self, queries: Tensor, levels: list[Tensor]) -> dict[str, Tensor]:
        """The score map of all levels and, if there is a decoder, its map of the last level.

        Args:
            queries: Shape (B, K, N, D).
            levels: Pixels of each level, shape (B, M, D) each, unit length.

        Returns:
            ``score`` and ``decoder``, shape (B, K, M) each, logits.
        """
        maps = {"score": self._score(levels, queries)}
        if self.decoder is not None:
            maps["decoder"] = self.decoder(queries, levels[-1])
        return maps

    def predicting_map(self, maps: Mapping[str, Tensor]) -> Tensor:
        """The map named by ``predict_from``, see :meth:`ZeroShotHead.predicting_map`."""
        if self.predict_from == "ensemble":
            return super().predicting_map(maps)
        return maps[self.predict_from]

    def plan(self, inputs: AlignedFeatures) -> Tensor:
        """The transport plan behind the score map, of the last level.

        Args:
            inputs: Output of the neck.

        Returns:
            What each prompt of each class takes from each patch, shape (B, K, N, H, W), of total
            mass 1 per (image, class).
        """
        pixels = inputs.pixels[-1]
        queries = F.normalize(inputs.queries, dim=-1)
        similarity = pixel_prompt_similarity(pixels.flatten(2).transpose(1, 2), queries)
        plan = multi_prompt_plan(similarity, self.score_transport, self.epsilon)
        return plan.unflatten(-1, pixels.shape[-2:])

    def _score(self, levels: list[Tensor], queries: Tensor) -> Tensor:
        """Score maps (B, K, M) of pixels (B, M, D) per level, averaged over the levels."""
        queries = F.normalize(queries, dim=-1)
        maps = [
            multi_prompt_score(
                pixel_prompt_similarity(pixels, queries), self.score_transport, self.epsilon
            )
            for pixels in levels
        ]
        if self.level_logits is None:
            return maps[0]
        weights = self.level_logits.softmax(0).to(maps[0].dtype)
        return torch.einsum("l,lbkm->bkm", weights, torch.stack(maps))
