"""Image towers behind one interface, open_clip's own ViT, and a faster self-attention for it."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import torch
import torch.nn.functional as F
from open_clip.transformer import ResidualAttentionBlock
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from mmseg_otseg.errors import UserError
from mmseg_otseg.ops import local_attention

POSITION_INTERPOLATIONS = ("bilinear", "bicubic")
Module = TypeVar("Module", bound=nn.Module)


class ImageTower(ABC):
    """One interface to the image towers of open_clip: blocks of tokens [prefix, patches].

    It holds no weights of its own. Shapes: B images, M patches in a grid of H x W, P prefix tokens
    (the class token, if there is one), width C, joint width D.

    Args:
        visual: The image tower of an open_clip model.

    Attributes:
        blocks: The blocks, in their order.
        width: Token width, C.
        patch_size: Rows and columns of a patch, in pixels.
        num_prefix: Number of tokens before the patches, P.
        takes_prompts: Whether it takes tokens besides prefix and patches.
        takes_local_attention: Whether :meth:`local_block` can be the last block.
    """

    blocks: Sequence[Callable[..., Tensor]]
    width: int
    patch_size: tuple[int, int]
    num_prefix: int
    takes_prompts = True
    takes_local_attention = False

    def __init__(self, visual: Any) -> None:
        self.visual = visual

    @abstractmethod
    def embed(
        self, images: Tensor, class_embedding_times: Tensor, interpolation: str = "bilinear"
    ) -> Tensor:
        """Tokens (B, P + M, C) before the first block.

        Args:
            images: Images, shape (B, 3, h, w), whose sides are multiples of the patch.
            class_embedding_times: How often the class embedding is added, a whole number.
            interpolation: How the position embedding is resized, see :func:`resize_positions`.
        """

    def block_options(
        self, grid: tuple[int, int], num_prompts: int = 0, num_extra: int = 0
    ) -> dict[str, Any]:
        """Keyword arguments that the blocks take besides tokens [prefix, prompts, patches, extra].

        ``grid`` is H and W, the rows and columns of patches.
        """
        return {}

    def attend(self, block: Any, tokens: Tensor, options: dict[str, Any]) -> Tensor:
        """What the tokens (B, L, C) attend to, before they are scaled and added to them."""
        raise NotImplementedError

    def branches(
        self, block: Any, options: dict[str, Any]
    ) -> tuple[Callable[[Tensor], Tensor], ...]:
        """The residual branches of a block: ``x + branch(x)``, one after the other, is the block.

        Only towers that take prompts need them. ``options`` are those of :meth:`block_options`.
        """
        raise NotImplementedError

    def local_block(
        self, kind: str, tokens: Tensor, grid: tuple[int, int], options: dict[str, Any]
    ) -> Tensor:
        """The last block with attention that lets patches keep to themselves.

        Args:
            kind: Of the attention, see :func:`~mmseg_otseg.ops.local_attention`.
            tokens: Tokens [prefix, patches] before the block, shape (B, P + M, C).
            grid, options: As in :meth:`block_options`.

        Returns:
            Tokens of that shape. For ``"sclip"`` they have passed the residual and the
            feed-forward; for the others they are the output of the attention alone.
        """
        block = self.blocks[-1]
        with _LocalAttention(kind, grid):
            if kind != "sclip":
                return self.attend(block, tokens, options)
            attention, feed_forward = self.branches(block, options)
            tokens = tokens + attention(tokens)
        return tokens + feed_forward(tokens)

    @abstractmethod
    def to_joint_space(self, tokens: Tensor) -> Tensor:
        """CLIP's own alignment of single tokens with text: (..., C) to (..., D)."""

    @abstractmethod
    def global_token(self, prefix: Tensor, patches: Tensor) -> Tensor:
        """What CLIP compares with text, (B, D), not scaled to unit length.

        Both arguments come from the last block: prefix tokens (B, P, C) and patches (B, M, C).
        """

    @abstractmethod
    def linear_alignment(self) -> tuple[nn.LayerNorm, Tensor, Tensor | None]:
        """A LayerNorm, a weight (D, C) and a bias (D,) that adapters can start from."""

    def adopt_native_resolution(self, state_dict: dict[str, Any], prefix: str) -> None:  # noqa: B027
        """Resize the position embedding to that of a state dict of another native resolution.

        Only open_clip's own ViT needs it: each native size of other towers is a model of its own.
        """


class _LocalAttention(TorchFunctionMode):
    """Within it, every attention is :func:`~mmseg_otseg.ops.local_attention` on a patch grid."""

    def __init__(self, kind: str, grid: tuple[int, int]) -> None:
        super().__init__()
        self.kind, self.grid = kind, grid

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is F.scaled_dot_product_attention:
            query, key, value = args[:3]
            return local_attention(self.kind, query, key, value, self.grid)
        return func(*args, **(kwargs or {}))


class PlainViT(ImageTower):
    """open_clip's ``VisionTransformer``: OpenAI's, LAION's, DFN's, MetaCLIP's and more."""

    takes_local_attention = True

    def __init__(self, visual: Any) -> None:
        super().__init__(visual)
        self.blocks = list(visual.transformer.resblocks)
        self.width, self.num_prefix = len(visual.class_embedding), 1
        self.patch_size = tuple(visual.patch_size)

    def embed(
        self, images: Tensor, class_embedding_times: Tensor, interpolation: str = "bilinear"
    ) -> Tensor:
        visual = self.visual
        patches = visual.conv1(images)
        batch, channels, *grid = patches.shape
        position = resize_positions(
            visual.positional_embedding,
            tuple(visual.grid_size),
            (grid[0], grid[1]),
            interpolation,
        ).to(patches.dtype)
        first = visual.class_embedding.to(patches.dtype) * class_embedding_times
        tokens = torch.cat(
            [first.expand(batch, 1, channels), patches.flatten(2).transpose(1, 2)], dim=1
        )
        embedded: Tensor = visual.ln_pre(tokens + position)
        return embedded

    def attend(self, block: Any, tokens: Tensor, options: dict[str, Any]) -> Tensor:
        attended: Tensor = block.attention(block.ln_1(tokens), **options)
        return attended

    def branches(
        self, block: Any, options: dict[str, Any]
    ) -> tuple[Callable[[Tensor], Tensor], ...]:
        return (
            lambda x: block.ls_1(self.attend(block, x, options)),
            lambda x: block.ls_2(block.mlp(block.ln_2(x))),
        )

    def to_joint_space(self, tokens: Tensor) -> Tensor:
        aligned: Tensor = self.visual.ln_post(tokens) @ self.visual.proj
        return aligned

    def global_token(self, prefix: Tensor, patches: Tensor) -> Tensor:
        return self.to_joint_space(prefix[:, 0])

    def linear_alignment(self) -> tuple[nn.LayerNorm, Tensor, Tensor | None]:
        return self.visual.ln_post, self.visual.proj.T, None

    def adopt_native_resolution(self, state_dict: dict[str, Any], prefix: str) -> None:
        position = state_dict.get(prefix + "positional_embedding")
        parameter = self.visual.positional_embedding
        if position is not None and position.shape != parameter.shape:
            side = math.isqrt(len(position) - 1)
            if side * side != len(position) - 1:
                raise UserError(
                    f"the checkpoint's {prefix}positional_embedding has {len(position)} rows, "
                    "which is not a class token and a square grid: its CLIP cannot be taken over"
                )
            self.visual.grid_size = (side, side)
            # The parameter stays the same object: an average of the model may hold on to it.
            parameter.data = parameter.new_zeros(position.shape)


def resize_positions(
    position: Tensor,
    native: tuple[int, int],
    grid: tuple[int, int],
    interpolation: str = "bilinear",
) -> Tensor:
    """Resize a position embedding to another patch grid.

    Args:
        position: Of the tokens [prefix, patches], shape (P + M, C).
        native: Rows and columns of its patch grid.
        grid: Rows and columns of the new one, H and W.
        interpolation: ``"bilinear"``; or ``"bicubic"`` by a factor of (H + 0.1) / rows, as in
            DINO's code and what follows it, such as NACLIP's.

    Returns:
        Position embedding, shape (P + H * W, C).

    Raises:
        UserError: If it is to be exported with ``"bicubic"`` for any grid.
    """
    # An exported graph for any grid cannot ask; resizing bilinearly to the same size is exact.
    any_grid = torch.compiler.is_exporting() and not all(isinstance(side, int) for side in grid)
    if not any_grid and grid == native:
        return position
    num_prefix = len(position) - native[0] * native[1]
    patches = position[num_prefix:].T.reshape(1, -1, *native)
    if interpolation == "bilinear":
        patches = F.interpolate(patches, grid, mode="bilinear", align_corners=False)
    elif any_grid:
        raise UserError(
            "positions that are resized bicubically are exported for one size only: give the size "
            "(--height, --width), or set model.backbone.position_interpolation=bilinear"
        )
    else:
        factors = [(new + 0.1) / old for new, old in zip(grid, native)]
        patches = F.interpolate(patches, scale_factor=factors, mode="bicubic", align_corners=False)
    return torch.cat([position[:num_prefix], patches[0].flatten(1).T])


class SelfAttention(nn.MultiheadAttention):
    """``nn.MultiheadAttention`` that projects all tokens of a batch in one matrix product.

    torch's own orders tokens by position first, then multiplies the few tokens at each position by
    the weights separately; in bfloat16, a CPU even copies the weights for every position.
    """

    def forward(  # type: ignore[override]
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        need_weights: bool = False,
        attn_mask: Tensor | None = None,
    ) -> tuple[Tensor, None]:
        """The output for tokens (B, L, C), which attend to each other; called as open_clip does.

        ``attn_mask`` (L, L) is floating.
        """
        projected = F.linear(query, self.in_proj_weight, self.in_proj_bias)  # (B, L, 3 * C)
        q, k, v = projected.unflatten(-1, (3, self.num_heads, -1)).permute(2, 0, 3, 1, 4).unbind()
        attended = F.scaled_dot_product_attention(q, k, v, attn_mask=attn_mask)  # (B, h, L, C / h)
        out = self.out_proj
        return F.linear(attended.transpose(1, 2).flatten(2), out.weight, out.bias), None


def with_self_attention(model: Module) -> Module:
    """Give the blocks of open_clip's transformers :class:`SelfAttention`, in place."""
    for module in model.modules():
        if isinstance(module, ResidualAttentionBlock):
            module.attn.__class__ = SelfAttention
    return model
