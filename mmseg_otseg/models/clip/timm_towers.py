"""timm's image towers in open_clip: vision transformers, ConvNeXt and FastViT."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from open_clip.timm_model import TimmModel
from timm.layers import PatchEmbed, build_rotary_pos_embed
from timm.models import ConvNeXt, FastVit
from timm.models.eva import EvaBlockPostNorm
from torch import Tensor, nn

from mmseg_otseg.errors import UserError

from .towers import ImageTower, PlainViT, resize_positions


def image_tower(visual: Any) -> ImageTower:
    """The interface to an image tower of open_clip that ``check_image_tower`` lets pass."""
    if not isinstance(visual, TimmModel):
        return PlainViT(visual)
    for kind, tower in ((ConvNeXt, ConvNeXtTower), (FastVit, FastViTTower)):
        if isinstance(visual.trunk, kind):
            return tower(visual)
    return TimmViT(visual)


class TimmViT(ImageTower):
    """timm's ``VisionTransformer`` or ``Eva``, with or without a class token.

    EVA, SigLIP, Perception Encoder and MobileCLIP-B are such towers.

    The global token is the class token, or what an attention pool makes of all tokens. Given a
    single token, an attention pool reduces to its value path, so local tokens take that path.
    """

    def __init__(self, visual: Any) -> None:
        super().__init__(visual)
        self.trunk = trunk = visual.trunk
        self.blocks = list(trunk.blocks)
        self.width, self.num_prefix = trunk.embed_dim, trunk.num_prefix_tokens
        self.patch_size = tuple(trunk.patch_embed.feat_ratio(as_scalar=False))
        starts_with_norm = not isinstance(self.blocks[-1], EvaBlockPostNorm)
        self.takes_local_attention = trunk.attn_pool is None and starts_with_norm

    def embed(
        self, images: Tensor, class_embedding_times: Tensor, interpolation: str = "bilinear"
    ) -> Tensor:
        trunk = self.trunk
        rows, columns = self.patch_size
        grid = (images.shape[-2] // rows, images.shape[-1] // columns)
        patches = trunk.patch_embed
        # A PatchEmbed's own forward refuses images that are not of the native size.
        tokens = (
            patches.norm(patches.proj(images).flatten(2).transpose(1, 2))
            if isinstance(patches, PatchEmbed)
            else patches(images)
        )
        positions = trunk.pos_embed
        if positions is not None:
            native = tuple(trunk.patch_embed.grid_size)
            positions = resize_positions(positions[0], native, grid, interpolation)
            positions = positions.to(tokens.dtype)
            tokens = tokens + positions[-tokens.shape[1] :]
        if trunk.cls_token is not None:
            first = trunk.cls_token * class_embedding_times
            if positions is not None and not trunk.no_embed_class:
                first = first + positions[:1]
            first = first.to(tokens.dtype).expand(tokens.shape[0], -1, -1)
            tokens = torch.cat([first, tokens], dim=1)
        embedded: Tensor = trunk.norm_pre(tokens)
        return embedded

    def block_options(
        self, grid: tuple[int, int], num_prompts: int = 0, num_extra: int = 0
    ) -> dict[str, Any]:
        rope = getattr(self.trunk, "rope", None)
        if rope is None:
            return {}
        # Built anew for every grid: the tower's own table is for its native size.
        waves = build_rotary_pos_embed(
            list(grid),
            rope.bands,
            in_pixels=rope.in_pixels,
            ref_feat_shape=rope.ref_feat_shape,
            grid_offset=rope.grid_offset,
            grid_indexing=rope.grid_indexing,
        )
        rotation = torch.cat(waves, dim=-1)  # (M, [sine, cosine])
        # Prompts and extra tokens have no place in the image: sine 0, cosine 1.
        still = torch.zeros_like(rotation[:1])
        still[:, still.shape[1] // 2 :] = 1
        before, after = still.expand(num_prompts, -1), still.expand(num_extra, -1)
        return {"rope": torch.cat([before, rotation, after])}

    def attend(self, block: Any, tokens: Tensor, options: dict[str, Any]) -> Tensor:
        attended: Tensor = block.attn(block.norm1(tokens), **options)
        return attended

    def branches(
        self, block: Any, options: dict[str, Any]
    ) -> tuple[Callable[[Tensor], Tensor], ...]:
        if isinstance(block, EvaBlockPostNorm):
            return (
                lambda x: block.norm1(block.attn(x, **options)),
                lambda x: block.norm2(block.mlp(x)),
            )
        first, second = self._scales(block)
        return (
            lambda x: first(self.attend(block, x, options)),
            lambda x: second(block.mlp(block.norm2(x))),
        )

    @staticmethod
    def _scales(block: Any) -> list[Callable[[Tensor], Tensor]]:
        """How a block scales its branches: Eva's by parameters, the ViT's by modules."""

        def scale(factor: Tensor | None, layer: nn.Module) -> Callable[[Tensor], Tensor]:
            return layer if factor is None else lambda x: factor * x

        pairs = (("gamma_1", "ls1"), ("gamma_2", "ls2"))
        return [
            scale(getattr(block, factor, None), getattr(block, layer, nn.Identity()))
            for factor, layer in pairs
        ]

    def to_joint_space(self, tokens: Tensor) -> Tensor:
        trunk = self.trunk
        tokens = trunk.norm(tokens)
        pool = trunk.attn_pool
        if pool is not None:
            for weight, bias in self._value_path(pool):
                tokens = F.linear(tokens, weight, bias)
            tokens = tokens + pool.mlp(pool.norm(tokens))
        aligned: Tensor = self.visual.head(trunk.head(trunk.fc_norm(tokens)))
        return aligned

    def global_token(self, prefix: Tensor, patches: Tensor) -> Tensor:
        if self.trunk.attn_pool is None:
            return self.to_joint_space(prefix[:, 0])
        tokens = torch.cat([prefix, patches], dim=1) if self.num_prefix else patches
        found: Tensor = self.visual.head(self.trunk.forward_head(self.trunk.norm(tokens)))
        return found

    def linear_alignment(self) -> tuple[nn.LayerNorm, Tensor, Tensor | None]:
        """As in the base class. An attention pool's MLP is left out, as it is not linear."""
        trunk, pool = self.trunk, self.trunk.attn_pool
        norm: nn.LayerNorm = trunk.norm
        layers = [] if pool is None else [*self._value_path(pool)]
        if isinstance(trunk.head, nn.Linear):
            layers.append((trunk.head.weight, trunk.head.bias))
        weight, bias = torch.eye(self.width), torch.zeros(self.width)
        for matrix, offset in layers:
            weight = matrix.float() @ weight
            bias = matrix.float() @ bias + (0 if offset is None else offset)
        return norm, weight, bias

    @staticmethod
    def _value_path(pool: Any) -> list[tuple[Tensor, Tensor | None]]:
        """Weight and bias of the two linear maps of an attention pool's value path."""
        _, value = pool.kv.weight.chunk(2)
        bias = None if pool.kv.bias is None else pool.kv.bias.chunk(2)[1]
        return [(value, bias), (pool.proj.weight, pool.proj.bias)]


class FeatureMapTower(ImageTower):
    """A patch is one position of the tower's last feature map.

    There is no class token: the global token is the mean of the patches, brought to CLIP's joint
    space like any of them.
    """

    num_prefix = 0
    takes_prompts = False

    def __init__(self, visual: Any) -> None:
        super().__init__(visual)
        self.trunk = trunk = visual.trunk
        self.width = trunk.num_features
        stride = trunk.feature_info[-1]["reduction"]
        self.patch_size = (stride, stride)

    def block_options(
        self, grid: tuple[int, int], num_prompts: int = 0, num_extra: int = 0
    ) -> dict[str, Any]:
        return {"grid": grid}

    def global_token(self, prefix: Tensor, patches: Tensor) -> Tensor:
        return self.to_joint_space(patches.mean(1))


class ConvNeXtTower(FeatureMapTower):
    """timm's ConvNeXt in open_clip: the blocks of its last stage."""

    def __init__(self, visual: Any) -> None:
        super().__init__(visual)
        self.blocks = [partial(on_map, block) for block in self.trunk.stages[-1].blocks]

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

    def __init__(self, visual: Any) -> None:
        super().__init__(visual)
        self.blocks = [partial(on_map, self.trunk.final_conv)]

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
