"""CLIP's image tower as a frozen backbone."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from typing import Any

import torch
import torch.nn.functional as F
from mmengine.model import BaseModule
from mmseg.registry import MODELS
from open_clip.transformer import VisionTransformer
from torch import Tensor, nn
from torchvision.ops import stochastic_depth

from mmseg_otseg.models.clip import FrozenTower, check_image_tower, load_clip
from mmseg_otseg.structures.features import CLIPFeatures

from .visual_prompts import DeepVisualPrompts


@MODELS.register_module()
class CLIPBackbone(BaseModule):
    """The image tower of an open_clip ViT: local tokens of any layers and the global token.

    CLIP's weights never train. Without visual prompts the tower runs without a graph. Images of any
    size are taken; sides that are no multiple of the patch are stretched to the next one.

    Args:
        clip: ``dict(model=..., pretrained=...)``, see :func:`~mmseg_otseg.models.clip.load_clip`.
        out_indices: Layers whose tokens are returned, negative ones counted from the last.
        project: Pass the tokens through CLIP's ``ln_post`` and projection (width D) instead of
            returning them as they are (the tower's width).
        visual_prompts: Arguments of :class:`DeepVisualPrompts` (``dict(num_tokens=10)``), or None.
        drop_path_rate: Stochastic depth of the last block while training, growing linearly from 0
            at the first. Only used with visual prompts: without them nothing in the tower trains.
        double_class_embedding: Add the class embedding to the global token once more, as the
            authors' code does and their checkpoints need. Weights trained with one setting do not
            fit the other, so a checkpoint carries its own and overrides this one.
        save_clip: Write CLIP's weights into checkpoints too.

    Raises:
        ValueError: If the model's image tower is not a plain ViT with a class token, or a layer
            does not exist.

    Source:
        OTSeg (arXiv 2403.14183), section 3.1.
    """

    class_embedding_times: Tensor

    def __init__(
        self,
        clip: Mapping[str, Any],
        out_indices: Sequence[int] = (-1,),
        project: bool = True,
        visual_prompts: Mapping[str, Any] | None = None,
        drop_path_rate: float = 0.0,
        double_class_embedding: bool = False,
        save_clip: bool = False,
        init_cfg: dict[str, Any] | None = None,
    ) -> None:
        super().__init__(init_cfg)
        check_image_tower(clip["model"])
        visual = load_clip(**clip).visual
        self.clip = FrozenTower(visual, saved=save_clip)
        blocks = visual.transformer.resblocks
        self.out_indices = _resolve_layers(out_indices, len(blocks))
        self.project = project
        self.register_buffer("class_embedding_times", torch.tensor(1 + double_class_embedding))
        self.visual_prompts: DeepVisualPrompts | None = None
        if visual_prompts is not None:
            self.visual_prompts = DeepVisualPrompts(
                num_layers=len(blocks),
                width=visual.class_embedding.shape[0],
                patch_size=visual.patch_size[0],
                **visual_prompts,
            )
            for block, rate in zip(
                blocks, torch.linspace(0, drop_path_rate, len(blocks)).tolist(), strict=True
            ):
                if rate > 0:
                    drop = self._stochastic_depth(rate)
                    block.ls_1.register_forward_hook(drop)
                    block.ls_2.register_forward_hook(drop)

    @property
    def double_class_embedding(self) -> bool:
        """Whether the class embedding is added twice."""
        return int(self.class_embedding_times) == 2

    @property
    def visual(self) -> VisionTransformer:
        """open_clip's image tower."""
        return self.clip.module

    def forward(self, images: Tensor) -> CLIPFeatures:
        """Encode images.

        Args:
            images: Normalised images, shape (B, 3, h, w), any h and w.

        Returns:
            Local tokens of the chosen layers and the global token.
        """
        # Nothing trains below the visual prompts; without them there is no graph to build at all.
        with nullcontext() if self.visual_prompts is not None else torch.no_grad():
            tokens, grid = self._embed(images)
            return self._run_blocks(tokens, grid)

    def _embed(self, images: Tensor) -> tuple[Tensor, tuple[int, int]]:
        """Images (B, 3, h, w) to tokens [global, patches] (B, 1 + M, C) and the grid (H, W)."""
        visual = self.visual
        height, width = (
            -(-side // patch) * patch
            for side, patch in zip(images.shape[-2:], visual.patch_size, strict=True)
        )
        if (height, width) != tuple(images.shape[-2:]):
            images = F.interpolate(images, (height, width), mode="bilinear", align_corners=False)
        patches = visual.conv1(images)
        batch, channels, *grid = patches.shape
        position = self._position_embedding((grid[0], grid[1])).to(patches.dtype)
        first = visual.class_embedding.to(patches.dtype) * self.class_embedding_times
        tokens = torch.cat(
            [first.expand(batch, 1, channels), patches.flatten(2).transpose(1, 2)], dim=1
        )
        return visual.ln_pre(tokens + position), (grid[0], grid[1])

    def _position_embedding(self, grid: tuple[int, int]) -> Tensor:
        """Position embedding of [global, patches], (1 + M, C), resized to the patch grid."""
        position = self.visual.positional_embedding
        if grid == tuple(self.visual.grid_size):
            return position
        patches = position[1:].T.reshape(1, -1, *self.visual.grid_size)
        patches = F.interpolate(patches, grid, mode="bilinear", align_corners=False)
        return torch.cat([position[:1], patches[0].flatten(1).T])

    def _run_blocks(self, tokens: Tensor, grid: tuple[int, int]) -> CLIPFeatures:
        visual = self.visual
        prompts = self.visual_prompts
        num_prompts = prompts.num_tokens if prompts is not None else 0
        layer_prompts = prompts(tokens.shape[0]) if prompts is not None else ()
        last = len(visual.transformer.resblocks) - 1
        chosen: dict[int, Tensor] = {}
        for index, block in enumerate(visual.transformer.resblocks):
            if num_prompts:
                skip = 1 if index == 0 else 1 + num_prompts
                tokens = torch.cat(
                    [tokens[:, :1], layer_prompts[index].to(tokens.dtype), tokens[:, skip:]], dim=1
                )
            tokens = block(tokens)
            if index == last and prompts is not None:
                tokens = prompts.norm(tokens)
            if index in self.out_indices:
                chosen[index] = tokens[:, 1 + num_prompts :]
        global_token = F.normalize(self._to_joint_space(tokens[:, 0]), dim=-1)
        local = tuple(
            self._to_joint_space(chosen[index]) if self.project else chosen[index]
            for index in self.out_indices
        )
        return CLIPFeatures(
            tuple(level.transpose(1, 2).unflatten(2, grid) for level in local), global_token
        )

    def _to_joint_space(self, tokens: Tensor) -> Tensor:
        """CLIP's own alignment with text: (..., C) to (..., D)."""
        return self.visual.ln_post(tokens) @ self.visual.proj

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any) -> None:
        state_dict.setdefault(prefix + "class_embedding_times", self.class_embedding_times)
        position = state_dict.get(prefix + "clip.module.positional_embedding")
        visual = self.visual
        if position is not None and len(position) != len(visual.positional_embedding):
            # The checkpoint's tower has another native resolution, as the authors' files do.
            side = math.isqrt(len(position) - 1)
            visual.grid_size = (side, side)
            visual.positional_embedding = nn.Parameter(
                visual.positional_embedding.new_zeros(position.shape), requires_grad=False
            )
        super()._load_from_state_dict(state_dict, prefix, *args)

    def _stochastic_depth(self, rate: float) -> Callable[[nn.Module, Any, Tensor], Tensor]:
        # open_clip's blocks end each residual branch in ls_1 and ls_2 (identities in CLIP): a hook
        # there drops the branch without a copy of the block's forward.
        def drop(_: nn.Module, __: Any, branch: Tensor) -> Tensor:
            return stochastic_depth(branch, rate, mode="row", training=self.training)

        return drop


def _resolve_layers(indices: Sequence[int], layers: int) -> tuple[int, ...]:
    resolved = tuple(index + layers if index < 0 else index for index in indices)
    if not resolved or any(not 0 <= index < layers for index in resolved):
        raise ValueError(
            f"out_indices={tuple(indices)} must name at least one of the tower's {layers} layers "
            f"(0..{layers - 1}, or negative from the last)"
        )
    if len(set(resolved)) != len(resolved):
        raise ValueError(f"out_indices={tuple(indices)} names a layer twice")
    return resolved
