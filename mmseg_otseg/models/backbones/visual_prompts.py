"""Deep visual prompts."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from mmseg_otseg.errors import UserError


class DeepVisualPrompts(nn.Module):
    """Learned tokens between the class token and the patches, new ones before every layer.

    Args:
        num_tokens: Tokens per layer, n.
        num_layers: Layers of the tower, L.
        width: Token width, C.
        patch_size: Patch side in pixels; sets the scale of the initial values.
        dropout: Dropout of the projected tokens.

    Raises:
        UserError: If ``num_tokens`` is less than 1, or ``dropout`` is not between 0 and 1.

    Source:
        Jia et al., "Visual Prompt Tuning" (ECCV 2022), VPT-Deep, as ZegCLIP (arXiv 2212.03588) uses
        it.
    """

    def __init__(
        self, num_tokens: int, num_layers: int, width: int, patch_size: int, dropout: float = 0.1
    ) -> None:
        super().__init__()
        if num_tokens < 1:
            raise UserError(f"visual prompts need at least one token, got num_tokens={num_tokens}")
        self.num_tokens = num_tokens
        bound = math.sqrt(6 / (3 * patch_size**2 + width))
        self.embeddings = nn.Parameter(
            torch.empty(num_layers, num_tokens, width).uniform_(-bound, bound)
        )
        self.proj = nn.Linear(width, width)
        nn.init.kaiming_normal_(self.proj.weight, a=0, mode="fan_out")
        self.dropout = nn.Dropout(dropout)
        self.norm = nn.LayerNorm(width, eps=1e-6)

    def forward(self, batch: int) -> tuple[Tensor, ...]:
        """Prompt tokens for each layer.

        Args:
            batch: Number of images, B.

        Returns:
            One (B, n, C) tensor per layer.
        """
        tokens = self.proj(self.embeddings)
        return tuple(self.dropout(layer.expand(batch, -1, -1)) for layer in tokens)
