"""CLIP's image tower as a frozen backbone."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from typing import Any

import torch
import torch.nn.functional as F
from mmseg.registry import MODELS
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint
from torchvision.ops import StochasticDepth

from mmseg_otseg.errors import UserError
from mmseg_otseg.models.clip import FrozenTower, check_image_tower, load_clip
from mmseg_otseg.models.clip.towers import ImageTower, image_tower
from mmseg_otseg.models.trained import TrainedModule
from mmseg_otseg.structures.features import CLIPFeatures

from .visual_prompts import DeepVisualPrompts


@MODELS.register_module()
class CLIPBackbone(TrainedModule):
    """The image tower of an open_clip ViT: local tokens of any layers and the global token.

    CLIP's weights never train. Without visual prompts the tower runs without a graph. Images of any
    size are taken; sides that are not a multiple of the patch are stretched to the next one.

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
        with_cp: Compute each layer again in the backward pass instead of keeping what it computed:
            less memory for more time.

    Raises:
        UserError: If the model's image tower cannot run here, or a layer does not exist; if it
            has no tokens for visual prompts, or no class token to double.

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
        with_cp: bool = False,
        init_cfg: dict[str, Any] | None = None,
    ) -> None:
        super().__init__(init_cfg)
        check_image_tower(clip["model"])
        visual = load_clip(**clip).visual
        self.clip = FrozenTower(visual, save_clip, clip.get("precision", "fp32"))
        tower = self.tower
        blocks = tower.blocks
        self.out_indices = _resolve_layers(out_indices, len(blocks))
        self.project, self.with_cp = project, with_cp
        self.register_buffer("class_embedding_times", torch.tensor(1 + double_class_embedding))
        if double_class_embedding and not tower.num_prefix:
            raise UserError("double_class_embedding needs a class token, but this CLIP has none")
        if visual_prompts is not None and not tower.takes_prompts:
            raise UserError(
                "visual prompts need a sequence of tokens, but this CLIP computes a feature map: "
                "set model.backbone.visual_prompts=None, or use a ViT"
            )
        self.visual_prompts: DeepVisualPrompts | None = None
        if visual_prompts is not None:
            self.visual_prompts = DeepVisualPrompts(
                num_layers=len(blocks),
                width=tower.width,
                patch_size=tower.patch_size[0],
                **visual_prompts,
            )
            rates = torch.linspace(0, drop_path_rate, len(blocks)).tolist()
            self.drop_paths = nn.ModuleList(StochasticDepth(rate, mode="row") for rate in rates)
            for block, drop_path, rate in zip(blocks, self.drop_paths, rates, strict=True):
                if rate > 0:
                    for branch in tower.branches(block):
                        branch.register_forward_hook(_DropBranch(drop_path))

    @property
    def double_class_embedding(self) -> bool:
        """Whether the class embedding is added twice."""
        return int(self.class_embedding_times) == 2

    @property
    def patch_size(self) -> tuple[int, int]:
        """Rows and columns of a patch, in pixels."""
        return self.tower.patch_size

    @property
    def visual(self) -> nn.Module:
        """open_clip's image tower."""
        return self.clip.module

    @property
    def tower(self) -> ImageTower:
        """The interface to it."""
        return image_tower(self.visual)

    def forward(self, images: Tensor) -> CLIPFeatures:
        """Encode images.

        Args:
            images: Normalized images, shape (B, 3, h, w), any h and w.

        Returns:
            Local tokens of the chosen layers and the global token, in the images' type whatever the
            tower runs in.

        Raises:
            RuntimeError: If something would train, but mmengine's ``activation_checkpointing`` cuts
                its gradients off.
        """
        trains = any(parameter.requires_grad for parameter in self.parameters())
        if trains and self.training and "forward" in vars(self) and not torch.is_grad_enabled():
            raise RuntimeError(
                "activation_checkpointing=['backbone'] would train the backbone without gradients, "
                "since its images have none: leave it out and set model.backbone.with_cp=True"
            )
        # Without visual prompts nothing trains here, and there is no graph to build.
        with nullcontext() if trains else torch.no_grad():
            tokens, grid = self._embed(images.to(self.clip.dtype))
            features = self._run_blocks(tokens, grid)
        return CLIPFeatures(
            tuple(level.to(images.dtype) for level in features.local),
            F.normalize(features.global_token.to(images.dtype), dim=-1),  # once more, unrounded
        )

    def _embed(self, images: Tensor) -> tuple[Tensor, tuple[int, int]]:
        """Images (B, 3, h, w) to tokens [prefix, patches] (B, P + M, C) and the grid (H, W)."""
        rows, columns = self.patch_size
        grid = (-(-images.shape[-2] // rows), -(-images.shape[-1] // columns))
        size = (grid[0] * rows, grid[1] * columns)
        if size != tuple(images.shape[-2:]):
            images = F.interpolate(images, size, mode="bilinear", align_corners=False)
        return self.tower.embed(images, self.class_embedding_times), grid

    def _run_blocks(self, tokens: Tensor, grid: tuple[int, int]) -> CLIPFeatures:
        """Tokens [prefix, patches] (B, P + M, C) through all layers, to features at M = H * W.

        With V visual prompts, the layers see [prefix, prompts, patches], (B, P + V + M, C), and the
        prompts are new before each layer.

        Args:
            tokens: Embedded images.
            grid: Rows H and columns W of patches.

        Returns:
            Local tokens of the chosen layers, (B, C, H, W) each (D for C where they are projected),
            and the global token (B, D), unit length.
        """
        tower, prompts = self.tower, self.visual_prompts
        first = tower.num_prefix
        num_prompts = prompts.num_tokens if prompts is not None else 0
        layer_prompts = prompts(tokens.shape[0]) if prompts is not None else ()
        options = tower.block_options(grid, num_prompts)
        last = len(tower.blocks) - 1
        chosen: dict[int, Tensor] = {}
        for index, block in enumerate(tower.blocks):
            if num_prompts:
                skip = first if index == 0 else first + num_prompts
                tokens = torch.cat(
                    [tokens[:, :first], layer_prompts[index].to(tokens.dtype), tokens[:, skip:]],
                    dim=1,
                )
            tokens = self._run_block(block, tokens, options)
            if index == last and prompts is not None:
                tokens = prompts.norm(tokens.to(prompts.norm.weight.dtype)).to(tokens.dtype)
            if index in self.out_indices:
                chosen[index] = tokens[:, first + num_prompts :]
        global_token = tower.global_token(tokens[:, :first], tokens[:, first + num_prompts :])
        local = tuple(
            tower.to_joint_space(chosen[index]) if self.project else chosen[index]
            for index in self.out_indices
        )
        return CLIPFeatures(
            tuple(level.transpose(1, 2).unflatten(2, grid) for level in local),
            F.normalize(global_token, dim=-1),
        )

    def _run_block(
        self, block: Callable[..., Tensor], tokens: Tensor, options: dict[str, Any]
    ) -> Tensor:
        if self.with_cp and torch.is_grad_enabled():
            return checkpoint(block, tokens, use_reentrant=False, **options)
        return block(tokens, **options)

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any) -> None:
        times = state_dict.setdefault(prefix + "class_embedding_times", self.class_embedding_times)
        if times.numel() != 1 or times.item() not in (1, 2):
            raise UserError(
                f"the checkpoint is damaged: {prefix}class_embedding_times is not 1 or 2"
            )
        # The checkpoint's tower may have another native resolution, as the authors' files do.
        self.tower.take_positions(state_dict, prefix + "clip.module.")
        super()._load_from_state_dict(state_dict, prefix, *args)


class _DropBranch:
    """Hook that drops a residual branch of a block of the tower.

    The branches of a block end in modules of their own (identities in CLIP); a hook there spares a
    copy of the block's forward. The module it calls belongs to the backbone, because the
    tower itself never is in training mode. An object, unlike a closure, follows the model into its
    copies and pickles.
    """

    def __init__(self, drop_path: StochasticDepth) -> None:
        self.drop_path = drop_path

    def __call__(self, _: nn.Module, __: Any, branch: Tensor) -> Tensor:
        return self.drop_path(branch)


def _resolve_layers(indices: Sequence[int], layers: int) -> tuple[int, ...]:
    resolved = tuple(index + layers if index < 0 else index for index in indices)
    if not resolved or any(not 0 <= index < layers for index in resolved):
        raise UserError(
            f"out_indices={tuple(indices)} must name at least one of the tower's {layers} layers "
            f"(0..{layers - 1}, or negative from the last)"
        )
    if len(set(resolved)) != len(resolved):
        raise UserError(f"out_indices={tuple(indices)} names a layer twice")
    return resolved
