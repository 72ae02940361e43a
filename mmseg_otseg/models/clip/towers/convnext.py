"""timm's ConvNeXt in open_clip: a feature map in place of tokens."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from .base import ImageTower


class ConvNeXtTower(ImageTower):
    """The blocks of ConvNeXt's last stage; a patch is a place of its feature map.

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
    def blocks(self) -> Sequence[Callable[..., Tensor]]:
        return [partial(_on_map, block) for block in self.trunk.stages[-1].blocks]

    @property
    def width(self) -> int:
        return int(self.trunk.num_features)

    @property
    def patch_size(self) -> tuple[int, int]:
        stride = int(self.trunk.feature_info[-1]["reduction"])
        return stride, stride

    def embed(self, images: Tensor, class_embedding_times: Tensor) -> Tensor:
        *first, last = self.trunk.stages
        features = self.trunk.stem(images)
        for stage in first:
            features = stage(features)
        tokens: Tensor = last.downsample(features).flatten(2).transpose(1, 2)
        return tokens

    def block_options(self, grid: tuple[int, int], num_prompts: int) -> dict[str, Any]:
        return {"grid": grid}

    def branches(self, block: Any) -> tuple[nn.Module, ...]:
        return ()

    def to_joint_space(self, tokens: Tensor) -> Tensor:
        norm = self.trunk.head.norm  # of maps, where channels come first
        tokens = F.layer_norm(tokens, norm.normalized_shape, norm.weight, norm.bias, norm.eps)
        aligned: Tensor = self.visual.head(tokens)
        return aligned

    def global_token(self, prefix: Tensor, patches: Tensor) -> Tensor:
        return self.to_joint_space(patches.mean(1))

    def linear_alignment(self) -> tuple[nn.LayerNorm, Tensor, Tensor | None]:
        projection = getattr(self.visual.head, "proj", None)
        if projection is None:
            raise ValueError(
                "this ConvNeXt ends in an MLP, which adapters cannot start from: use a model with "
                "a linear projection (convnext_base_w), or set project=True"
            )
        return self.trunk.head.norm, projection.weight, projection.bias

    def take_positions(self, state_dict: dict[str, Any], prefix: str) -> None:
        """Nothing: a convolution has no positions."""


def _on_map(block: nn.Module, tokens: Tensor, grid: tuple[int, int]) -> Tensor:
    """A block of maps (B, C, H, W) on tokens (B, H * W, C)."""
    found: Tensor = block(tokens.transpose(1, 2).unflatten(2, grid))
    return found.flatten(2).transpose(1, 2)
