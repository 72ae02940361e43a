"""What is exported: a model as two functions on plain tensors."""

from __future__ import annotations

import copy
from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from mmseg_otseg.models.decode_heads import SimilarityHead
from mmseg_otseg.models.text import LearnablePrompts, TextTower
from mmseg_otseg.ops import multi_prompt_plan, pixel_prompt_similarity
from mmseg_otseg.structures.features import AlignedFeatures


class SegmentationGraph(nn.Module):
    """Images and text embeddings in, probabilities out, or the cosines of a training-free model.

    Args:
        model: A segmentor of this package, in eval mode, on the CPU.
        at_image_size: Whether they are resized to the images' size, as the model does
            it, or left at one value for each patch.
        residual: Whether there is a second output: the error of the row sums of the score map's
            Sinkhorn plan.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, model: Any, at_image_size: bool = True, residual: bool = False) -> None:
        super().__init__()
        self.backbone, self.neck, self.head = model.backbone, model.neck, model.decode_head
        self.at_image_size, self.residual = at_image_size, residual
        prepares = model.data_preprocessor
        # mmseg loads BGR, and a model that does not convert it was trained on BGR. The stacks name
        # the conversion differently.
        converts = ("channel_conversion", "_channel_conversion")
        self.flips = not any(getattr(prepares, name, False) for name in converts)
        self.register_buffer("mean", prepares.mean.clone(), persistent=False)
        self.register_buffer("std", prepares.std.clone(), persistent=False)

    def forward(self, image: Tensor, text: Tensor, seen_bias: Tensor) -> tuple[Tensor, ...]:
        """Segment images.

        Args:
            image: RGB values 0..255, shape (B, 3, h, w), uint8.
            text: Text embeddings of each name, shape (Q, N, D), unit length.
            seen_bias: What is subtracted from the probabilities of each name, shape (Q,).

        Returns:
            Probabilities less the bias, shape (B, Q, h, w), or (B, Q, H, W) at one value for each
            patch; the largest one wins. For a ``SimilarityHead``, cosines without a bias. If asked
            for, the largest relative error of a row sum of the score map's plans, a scalar.
        """
        rgb = image.flip(1) if self.flips else image
        features = self.backbone((rgb.to(self.mean.dtype) - self.mean) / self.std)
        aligned = self.neck.align(features, text)
        logits = self.head.predicting_map(self.head(aligned))
        if self.at_image_size:
            size, corners = image.shape[-2:], self.head.align_corners
            logits = F.interpolate(logits, size, mode="bilinear", align_corners=corners)
        if isinstance(self.head, SimilarityHead):
            values = logits + 0 * seen_bias[:, None, None]  # what has no effect stays an input
        else:
            values = logits.sigmoid() - seen_bias[:, None, None]
        return (values, self._residual(aligned)) if self.residual else (values,)

    def _residual(self, aligned: AlignedFeatures) -> Tensor:
        pixels = aligned.pixels[-1].flatten(2).transpose(1, 2)
        similarity = pixel_prompt_similarity(pixels, F.normalize(aligned.queries, dim=-1))
        plan = multi_prompt_plan(similarity, "sinkhorn", self.head.epsilon)
        return (plan.sum(2) * plan.shape[-1] - 1).abs().flatten().amax(0)


class TextGraph(nn.Module):
    """Tokens of a sentence in, its text embeddings out.

    Args:
        encoder: CLIP's text tower, or ZegOT's prompts, which put their contexts around the sentence
            (then a class name and a period).
    """

    def __init__(self, encoder: TextTower | LearnablePrompts) -> None:
        super().__init__()
        self.encoder = copy.deepcopy(encoder)
        copied = self.encoder
        tower = copied if isinstance(copied, TextTower) else copied.text_tower
        # One place more than sentences fill: torch.export fixes the length of a slice that can be
        # the whole.
        position = F.pad(tower.positional_embedding, (0, 0, 0, 1))
        tower.positional_embedding = nn.Parameter(position, requires_grad=False)
        if tower.attn_mask is not None:
            tower.attn_mask = F.pad(tower.attn_mask, (0, 1, 0, 1))

    def forward(self, tokens: Tensor) -> Tensor:
        """Encode sentences.

        Args:
            tokens: Start token, words, end token, then zeros; shape (n, T), int64.

        Returns:
            Embeddings of unit length, shape (n, N, D): one for each context, or N = 1 without.
        """
        if isinstance(self.encoder, LearnablePrompts):
            return self.encoder.encode_tokens(tokens)
        return self.encoder(tokens)[:, None]
