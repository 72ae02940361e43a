"""What the backbone asks of an image tower, whatever its family."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmseg_otseg.errors import UserError

POSITION_INTERPOLATIONS = ("bilinear", "bicubic")


class ImageTower(ABC):
    """One interface to the image towers of open_clip: blocks of tokens [prefix, patches].

    It holds no weights of its own and may be made anew at any time. Shapes: B images, M patches in
    a grid of H x W, P prefix tokens (the class token, if there is one), width C, joint width D.

    Args:
        visual: The image tower of an open_clip model.
    """

    takes_prompts: ClassVar[bool] = True  # tokens besides prefix and patches

    def __init__(self, visual: Any) -> None:
        self.visual = visual

    @property
    @abstractmethod
    def num_prefix(self) -> int:
        """Number of tokens before the patches, P."""

    @property
    @abstractmethod
    def blocks(self) -> Sequence[Callable[..., Tensor]]:
        """The blocks, in their order."""

    @property
    @abstractmethod
    def width(self) -> int:
        """Token width, C."""

    @property
    @abstractmethod
    def patch_size(self) -> tuple[int, int]:
        """Rows and columns of a patch, in pixels."""

    @abstractmethod
    def embed(
        self, images: Tensor, class_embedding_times: Tensor, interpolation: str = "bilinear"
    ) -> Tensor:
        """Tokens before the first block.

        Args:
            images: Images, shape (B, 3, h, w), whose sides are multiples of the patch.
            class_embedding_times: How often the class embedding is added, a whole number.
            interpolation: How the position embedding is resized, see :func:`resize_positions`.

        Returns:
            Tokens, shape (B, P + M, C).
        """

    def block_options(
        self, grid: tuple[int, int], num_prompts: int = 0, num_extra: int = 0
    ) -> dict[str, Any]:
        """Keyword arguments that the blocks take besides tokens [prefix, prompts, patches, extra].

        Args:
            grid: Rows and columns of patches, H and W.
            num_prompts: Tokens between prefix and patches.
            num_extra: Tokens after the patches.
        """
        return {}

    @abstractmethod
    def branches(
        self, block: Any, options: dict[str, Any]
    ) -> tuple[Callable[[Tensor], Tensor], ...]:
        """The residual branches of a block: ``x + branch(x)``, one after the other, is the block.

        Args:
            block: One of :attr:`blocks`.
            options: The block's keyword arguments besides the tokens.
        """

    @abstractmethod
    def check_local_attention(self) -> None:
        """Check that :meth:`local_block` can stand in for the last block.

        Raises:
            UserError: If it cannot, with the reason.
        """

    @abstractmethod
    def local_block(
        self, kind: str, tokens: Tensor, grid: tuple[int, int], options: dict[str, Any]
    ) -> Tensor:
        """The last block with attention that lets patches keep to themselves.

        Args:
            kind: Of the attention, see :func:`~mmseg_otseg.ops.local_attention`.
            tokens: Tokens [prefix, patches] before the block, shape (B, P + M, C).
            grid: Rows and columns of patches, H and W.
            options: The block's keyword arguments besides the tokens.

        Returns:
            Tokens of that shape. For ``"sclip"`` they have passed the residual and the
            feed-forward; for the others they are the output of the attention alone.
        """

    @abstractmethod
    def to_joint_space(self, tokens: Tensor) -> Tensor:
        """CLIP's own alignment of single tokens with text: (..., C) to (..., D)."""

    @abstractmethod
    def global_token(self, prefix: Tensor, patches: Tensor) -> Tensor:
        """What CLIP compares with text.

        Args:
            prefix: Prefix tokens after the last block, shape (B, P, C).
            patches: Patches after the last block, shape (B, M, C).

        Returns:
            Global tokens, shape (B, D), not scaled to unit length.
        """

    @abstractmethod
    def linear_alignment(self) -> tuple[nn.LayerNorm, Tensor, Tensor | None]:
        """A LayerNorm, a weight (D, C) and a bias (D,) that adapters can start from."""

    @abstractmethod
    def take_positions(self, state_dict: dict[str, Any], prefix: str) -> None:
        """Make room for the position embedding of a state dict of another native resolution."""


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
