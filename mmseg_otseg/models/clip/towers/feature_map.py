"""Towers of convolutions: a feature map in place of tokens."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

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

    def block_options(self, grid: tuple[int, int], num_prompts: int) -> dict[str, Any]:
        return {"grid": grid}

    def branches(self, block: Any) -> tuple[nn.Module, ...]:
        return ()

    def global_token(self, prefix: Tensor, patches: Tensor) -> Tensor:
        return self.to_joint_space(patches.mean(1))

    def take_positions(self, state_dict: dict[str, Any], prefix: str) -> None:
        """Nothing to do: a convolution has no positions."""


def as_tokens(features: Tensor) -> Tensor:
    """Maps (B, C, H, W) as tokens (B, H * W, C)."""
    return features.flatten(2).transpose(1, 2)


def on_map(block: nn.Module, tokens: Tensor, grid: tuple[int, int]) -> Tensor:
    """A block of maps (B, C, H, W) on tokens (B, H * W, C)."""
    return as_tokens(block(tokens.transpose(1, 2).unflatten(2, grid)))
