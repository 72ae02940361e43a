"""open_clip's own ViT with a class token."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from mmseg_otseg.errors import UserError

from .base import ImageTower, resize_positions


class PlainViT(ImageTower):
    """open_clip's ``VisionTransformer``: OpenAI's, LAION's, DFN's, MetaCLIP's and more."""

    @property
    def num_prefix(self) -> int:
        return 1

    @property
    def blocks(self) -> Sequence[Callable[..., Tensor]]:
        return list(self.visual.transformer.resblocks)

    @property
    def width(self) -> int:
        return len(self.visual.class_embedding)

    @property
    def patch_size(self) -> tuple[int, int]:
        rows, columns = self.visual.patch_size
        return rows, columns

    def embed(self, images: Tensor, class_embedding_times: Tensor) -> Tensor:
        visual = self.visual
        patches = visual.conv1(images)
        batch, channels, *grid = patches.shape
        position = resize_positions(
            visual.positional_embedding, tuple(visual.grid_size), (grid[0], grid[1])
        ).to(patches.dtype)
        first = visual.class_embedding.to(patches.dtype) * class_embedding_times
        tokens = torch.cat(
            [first.expand(batch, 1, channels), patches.flatten(2).transpose(1, 2)], dim=1
        )
        embedded: Tensor = visual.ln_pre(tokens + position)
        return embedded

    def branches(self, block: Any) -> tuple[nn.Module, nn.Module]:
        return block.ls_1, block.ls_2  # identities in CLIP

    def to_joint_space(self, tokens: Tensor) -> Tensor:
        aligned: Tensor = self.visual.ln_post(tokens) @ self.visual.proj
        return aligned

    def global_token(self, prefix: Tensor, patches: Tensor) -> Tensor:
        return self.to_joint_space(prefix[:, 0])

    def linear_alignment(self) -> tuple[nn.LayerNorm, Tensor, Tensor | None]:
        return self.visual.ln_post, self.visual.proj.T, None

    def take_positions(self, state_dict: dict[str, Any], prefix: str) -> None:
        position = state_dict.get(prefix + "positional_embedding")
        parameter = self.visual.positional_embedding
        if position is not None and position.shape != parameter.shape:
            rows = len(position) if position.ndim == 2 else 0
            side = math.isqrt(max(rows - 1, 0))
            if rows < 2 or side * side != rows - 1:
                raise UserError(
                    f"the checkpoint is damaged: {prefix}positional_embedding has the shape "
                    f"{tuple(position.shape)}, which is not a class token and a square grid"
                )
            self.visual.grid_size = (side, side)
            # The parameter stays the same object: an average of the model may hold on to it.
            parameter.data = parameter.new_zeros(position.shape)
