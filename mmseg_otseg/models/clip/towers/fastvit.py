"""timm's FastViT in open_clip: MobileCLIP-S."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

from torch import Tensor, nn

from mmseg_otseg.errors import UserError

from .feature_map import FeatureMapTower, as_tokens, on_map


class FastViTTower(FeatureMapTower):
    """One level: the convolution that gives FastViT's map its last width."""

    @property
    def blocks(self) -> Sequence[Callable[..., Tensor]]:
        return [partial(on_map, self.trunk.final_conv)]

    def embed(self, images: Tensor, class_embedding_times: Tensor) -> Tensor:
        return as_tokens(self.trunk.stages(self.trunk.stem(images)))

    def to_joint_space(self, tokens: Tensor) -> Tensor:
        aligned: Tensor = self.visual.head(self.trunk.head.fc(tokens))
        return aligned

    def linear_alignment(self) -> tuple[nn.LayerNorm, Tensor, Tensor | None]:
        raise UserError(
            "this CLIP's tower is a FastViT, which has no LayerNorm before its projection, so "
            "adapters cannot start from it: set model.backbone.project=True, or use MobileCLIP-B"
        )
