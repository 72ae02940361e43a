"""Towers of convolutions, ConvNeXt and FastViT: a feature map in place of tokens."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from mmseg_otseg.errors import UserError

from .base import ImageTower


class FeatureMapTower(ImageTower):
    """A patch is one position of the tower's last feature map.

    There is no class token: the global token is the mean of the patches, brought to CLIP's joint
    space like any of them.
    """

    num_prefix = 0
    takes_prompts = False

    @property
    def trunk(self) -> Any:
        """timm's model."""
        return self.visual.trunk

    @property
    def width(self) -> int:
        return int(self.trunk.num_features)

    @property
    def patch_size(self) -> tuple[int, int]:
        stride = int(self.trunk.feature_info[-1]["reduction"])
        return stride, stride

    def block_options(
        self, grid: tuple[int, int], num_prompts: int = 0, num_extra: int = 0
    ) -> dict[str, Any]:
        return {"grid": grid}

    def branches(
        self, block: Any, options: dict[str, Any]
    ) -> tuple[Callable[[Tensor], Tensor], ...]:
        """Not needed: nothing in a tower without prompts is dropped in training."""
        raise NotImplementedError

    def check_local_attention(self) -> None:
        raise UserError(
            "local_attention needs a ViT, but this CLIP computes a feature map: set "
            "model.backbone.local_attention=None"
        )

    def local_block(
        self, kind: str, tokens: Tensor, grid: tuple[int, int], options: dict[str, Any]
    ) -> Tensor:
        """Not needed: there is no attention to replace."""
        raise NotImplementedError

    def global_token(self, prefix: Tensor, patches: Tensor) -> Tensor:
        return self.to_joint_space(patches.mean(1))

    def take_positions(self, state_dict: dict[str, Any], prefix: str) -> None:
        """Nothing to do: a convolution has no positions."""


class ConvNeXtTower(FeatureMapTower):
    """timm's ConvNeXt in open_clip: the blocks of its last stage."""

    @property
    def blocks(self) -> Sequence[Callable[..., Tensor]]:
        return [partial(on_map, block) for block in self.trunk.stages[-1].blocks]

    def embed(
        self, images: Tensor, class_embedding_times: Tensor, interpolation: str = "bilinear"
    ) -> Tensor:
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


class FastViTTower(FeatureMapTower):
    """timm's FastViT in open_clip (MobileCLIP-S).

    It has one level: the convolution that gives the map its last width.
    """

    @property
    def blocks(self) -> Sequence[Callable[..., Tensor]]:
        return [partial(on_map, self.trunk.final_conv)]

    def embed(
        self, images: Tensor, class_embedding_times: Tensor, interpolation: str = "bilinear"
    ) -> Tensor:
        return as_tokens(self.trunk.stages(self.trunk.stem(images)))

    def to_joint_space(self, tokens: Tensor) -> Tensor:
        aligned: Tensor = self.visual.head(self.trunk.head.fc(tokens))
        return aligned

    def linear_alignment(self) -> tuple[nn.LayerNorm, Tensor, Tensor | None]:
        raise UserError(
            "this CLIP's tower is a FastViT, which has no LayerNorm before its projection, so "
            "adapters cannot start from it: set model.backbone.project=True, or use MobileCLIP-B"
        )


def as_tokens(features: Tensor) -> Tensor:
    """Maps (B, C, H, W) as tokens (B, H * W, C)."""
    return features.flatten(2).transpose(1, 2)


def on_map(block: nn.Module, tokens: Tensor, grid: tuple[int, int]) -> Tensor:
    """A block of maps (B, C, H, W) on tokens (B, H * W, C)."""
    return as_tokens(block(tokens.transpose(1, 2).unflatten(2, grid)))
