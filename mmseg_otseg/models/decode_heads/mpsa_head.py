"""OTSeg's head: Multi-Prompts Sinkhorn score maps and the MPSA decoder."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from mmseg.models.decode_heads.decode_head import BaseDecodeHead
from mmseg.registry import MODELS
from mmseg.utils import SampleList
from torch import Tensor, nn

from mmseg_otseg.models.clip import clip_embed_dim
from mmseg_otseg.ops import multi_prompt_plan, pixel_prompt_similarity, transport_score
from mmseg_otseg.structures.features import AlignedFeatures
from mmseg_otseg.structures.labels import IGNORED, UNLABELLED

from .mpsa import MPSADecoder

PREDICTIONS = ("ensemble", "decoder", "score")


class ClassMaps(NamedTuple):
    """Class maps of one forward pass.

    Attributes:
        score: Multi-Prompts Sinkhorn score maps, shape (B, K, H, W), logits.
        decoder: MPSA decoder maps, same shape, logits; None without a decoder.
    """

    score: Tensor
    decoder: Tensor | None


@MODELS.register_module()
class MPSAHead(BaseDecodeHead):
    """Score maps by Multi-Prompts Sinkhorn, decoder maps by Multi-Prompts Sinkhorn Attention.

    The neck decides which classes there are queries for; the head follows. Labels come in as full
    class indices, predictions go out as probabilities ``sigmoid(logits)`` less the seen-class bias.

    Args:
        num_classes: Number of classes predicted in testing, seen and unseen.
        clip: Config with CLIP's ``model``, to derive the width D from; or give ``embed_dim``.
        embed_dim: Width D.
        num_levels: Levels the neck returns; the score maps of several are averaged with learned
            weights.
        decoder_layers: Layers of the MPSA decoder; 0 is no decoder.
        transport: How score map and decoder match prompts and pixels, see
            :func:`~mmseg_otseg.ops.multi_prompt_plan`.
        score_transport: The same for the score map alone, if it shall differ from the decoder.
        epsilon: Entropy weight of the plans.
        dropout: Dropout in the decoder.
        predict_from: ``"ensemble"`` of both maps (OTSeg+), ``"decoder"`` (OTSeg) or ``"score"``.
        seen_bias: Subtracted from the seen classes' probabilities in testing; 0.1 in the paper's
            inductive setting, 0 in the others.
        loss_decode: Config of the loss.
        align_corners: How class maps are upsampled.

    Raises:
        ValueError: If an option is unknown, or width or number of levels or classes do not fit.

    Source:
        OTSeg (arXiv 2403.14183), sections 3.2 to 3.4.
    """

    def __init__(
        self,
        num_classes: int,
        clip: Mapping[str, Any] | None = None,
        embed_dim: int | None = None,
        num_levels: int = 1,
        decoder_layers: int = 3,
        transport: str = "sinkhorn",
        score_transport: str | None = None,
        epsilon: float = 0.05,
        dropout: float = 0.1,
        predict_from: str = "ensemble",
        seen_bias: float = 0.1,
        loss_decode: Mapping[str, Any] | None = None,
        align_corners: bool = False,
        init_cfg: dict[str, Any] | None = None,
    ) -> None:
        if (clip is None) == (embed_dim is None):
            raise ValueError("give the head either `clip` or `embed_dim`, to know its width from")
        if predict_from not in PREDICTIONS:
            raise ValueError(
                f"predict_from must be one of {', '.join(PREDICTIONS)}, got {predict_from!r}"
            )
        if not decoder_layers and predict_from != "score":
            raise ValueError("without a decoder (decoder_layers=0) set predict_from='score'")
        width = clip_embed_dim(clip["model"]) if clip is not None else int(embed_dim or 0)
        super().__init__(
            in_channels=width,
            channels=width,
            num_classes=num_classes,
            out_channels=num_classes,
            # mmseg thresholds a single map into {0, 1}; with one class only 0 is a class.
            threshold=1.0,
            dropout_ratio=0.0,
            loss_decode=dict(loss_decode or {"type": "FocalDiceLoss"}),
            align_corners=align_corners,
            init_cfg=init_cfg,
        )
        del self.conv_seg  # maps come from matching text, not from a classifier
        self.transport, self.epsilon = score_transport or transport, epsilon
        self.predict_from, self.seen_bias = predict_from, seen_bias
        self.num_levels = num_levels
        self.level_logits = nn.Parameter(torch.zeros(num_levels)) if num_levels > 1 else None
        self.decoder = (
            MPSADecoder(width, decoder_layers, dropout, transport, epsilon)
            if decoder_layers
            else None
        )

    def forward(self, inputs: AlignedFeatures) -> ClassMaps:
        """Class maps at patch resolution.

        Args:
            inputs: Output of the neck.

        Returns:
            Logits for every class that has queries.
        """
        if len(inputs.pixels) != self.num_levels:
            raise ValueError(
                f"the head expects num_levels={self.num_levels}, the neck returns "
                f"{len(inputs.pixels)}"
            )
        grid = inputs.pixels[-1].shape[-2:]
        levels = [level.flatten(2).transpose(1, 2) for level in inputs.pixels]
        score = self._score(levels, inputs.queries).unflatten(-1, grid)
        if self.decoder is None:
            return ClassMaps(score, None)
        return ClassMaps(score, self.decoder(inputs.queries, levels[-1]).unflatten(-1, grid))

    def _score(self, levels: list[Tensor], queries: Tensor) -> Tensor:
        """Score maps (B, K, M) of pixels (B, M, D) per level, averaged over the levels."""
        queries = F.normalize(queries, dim=-1)
        maps = []
        for pixels in levels:
            similarity = pixel_prompt_similarity(pixels, queries)
            plan = multi_prompt_plan(similarity, self.transport, self.epsilon)
            maps.append(transport_score(similarity, plan))
        if self.level_logits is None:
            return maps[0]
        return torch.einsum("l,lbkm->bkm", self.level_logits.softmax(0), torch.stack(maps))

    def loss(
        self, inputs: AlignedFeatures, batch_data_samples: SampleList, train_cfg: Any = None
    ) -> dict[str, Tensor]:
        """Losses of both maps.

        Args:
            inputs: Output of the neck.
            batch_data_samples: Samples with ``gt_sem_seg``: full class indices, 255 ignored, 254
                unlabelled (pixels of unseen classes in the transductive setting).
            train_cfg: Not used.

        Returns:
            ``score.loss_mask``, ``score.loss_dice`` and the same for the decoder.
        """
        maps = self.forward(inputs)
        labels = self._stack_batch_gt(batch_data_samples).squeeze(1)
        target = query_targets(labels, inputs.classes)
        if self._self_trains(inputs):
            pseudo = self._pseudo_labels(maps, inputs.seen, labels.shape[1:])
            target = torch.where(labels == UNLABELLED, pseudo, target)
        losses = {}
        for name, class_map in maps._asdict().items():
            if class_map is not None:
                loss = self.loss_decode(class_map, target, self.align_corners)
                losses.update({f"{name}.{key}": value for key, value in loss.items()})
        return losses

    def predict(
        self, inputs: AlignedFeatures, batch_img_metas: list[dict], test_cfg: Any
    ) -> Tensor:
        """Probabilities at image size.

        Args:
            inputs: Output of the neck.
            batch_img_metas: Meta information of the images; says their size.
            test_cfg: Not used.

        Returns:
            ``sigmoid(logits)`` less the seen-class bias, shape (B, K, h, w); the largest value
            wins.
        """
        if len(inputs.classes) != self.num_classes:
            raise ValueError(
                f"the vocabulary has {len(inputs.classes)} classes but the head "
                f"num_classes={self.num_classes}"
            )
        logits = _combine(self.forward(inputs), self.predict_from)
        bias = self.seen_bias * inputs.seen[:, None, None].to(logits)
        # In place: at image size, memory is what takes the time.
        return self.predict_by_feat(logits, batch_img_metas).sigmoid_().sub_(bias)

    def _self_trains(self, inputs: AlignedFeatures) -> bool:
        """Whether there are queries of unseen classes to label pixels with."""
        return not bool(inputs.seen.all())

    @torch.no_grad()
    def _pseudo_labels(self, maps: ClassMaps, seen: Tensor, size: torch.Size) -> Tensor:
        """Best unseen class of every pixel, shape (B, h, w), as an index into the queries."""
        unseen = torch.nonzero(~seen)[:, 0]
        logits = _combine(maps, "ensemble")[:, unseen]
        logits = F.interpolate(logits, size, mode="bilinear", align_corners=self.align_corners)
        return unseen[logits.argmax(1)]


def _combine(maps: ClassMaps, predict_from: str) -> Tensor:
    """The map that predicts, shape (B, K, H, W), logits."""
    if predict_from == "score" or maps.decoder is None:
        return maps.score
    if predict_from == "decoder":
        return maps.decoder
    return 0.5 * maps.decoder + 0.5 * maps.score


def query_targets(labels: Tensor, classes: Tensor) -> Tensor:
    """Full class indices to indices into the query classes.

    Args:
        labels: Full class indices, any shape, integer; 254 and 255 belong to no class.
        classes: Full class index of each query class, shape (K,), int64.

    Returns:
        Index 0..K-1 where the label is a query class, 255 elsewhere; shape of ``labels``, int64.
    """
    table = torch.full((IGNORED + 1,), IGNORED, dtype=torch.int64, device=labels.device)
    table[classes] = torch.arange(len(classes), device=labels.device)
    return table[labels.long()]
