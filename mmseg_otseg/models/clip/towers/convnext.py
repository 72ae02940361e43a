"""timm's ConvNeXt in open_clip."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

import torch.nn.functional as F
from torch import Tensor, nn

from mmseg_otseg.errors import UserError

from .feature_map import FeatureMapTower, as_tokens, on_map


class ConvNeXtTower(FeatureMapTower):
    """The blocks of ConvNeXt's last stage."""

    @property
    def blocks(self) -> Sequence[Callable[..., Tensor]]:
        return [partial(on_map, block) for block in self.trunk.stages[-1].blocks]

    def embed(self, images: Tensor, class_embedding_times: Tensor) -> Tensor:
        *first, last = self.trunk.stages
        features = self.trunk.stem(images)
        for stage in first:
            features = stage(features)
        return as_tokens(last.downsample(features))

    def to_joint_space(self, tokens: Tensor) -> Tensor:
        norm = self.trunk.head.norm  # of maps, where channels come first
        tokens = F.layer_norm(tokens, norm.normalized_shape, norm.weight, norm.bias, norm.eps)
        aligned: Tensor = self.visual.head(tokens)
        return aligned

    def linear_alignment(self) -> tuple[nn.LayerNorm, Tensor, Tensor | None]:
        projection = getattr(self.visual.head, "proj", None)
        if projection is None:
            raise UserError(
                "this ConvNeXt ends in an MLP, which adapters cannot start from: use a model with "
                "a linear projection (convnext_base_w), or set project=True"
            )
        return self.trunk.head.norm, projection.weight, projection.bias
