"""The relationship descriptor: text queries that depend on the image."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class RelationshipDescriptor(nn.Module):
    """``Q = Linear([T * g ; T])``: text embeddings T and their product with the global token g.

    Args:
        embed_dim: Width D.
        identity_init: Whether to initialize with the identity on the T half (``Q = T``), which
            helps short schedules, instead of a truncated normal.

    Source:
        ZegCLIP (arXiv 2212.03588), section 3.4.
    """

    def __init__(self, embed_dim: int, identity_init: bool = False) -> None:
        super().__init__()
        self.linear = nn.Linear(2 * embed_dim, embed_dim)
        nn.init.zeros_(self.linear.bias)
        if identity_init:
            with torch.no_grad():
                self.linear.weight.zero_()
                self.linear.weight[:, embed_dim:] = torch.eye(embed_dim)
        else:
            nn.init.trunc_normal_(self.linear.weight, std=0.02)

    def forward(self, text: Tensor, global_token: Tensor) -> Tensor:
        """Describe classes for each image.

        Args:
            text: Text embeddings, shape (K, N, D), unit length.
            global_token: Image embeddings, shape (B, D), unit length.

        Returns:
            Text queries, shape (B, K, N, D).
        """
        # The two halves of the product apart: the text half is the same for every image.
        on_product, on_text = self.linear.weight.chunk(2, dim=1)
        product = text * global_token[:, None, None, :]
        return product @ on_product.T + (text @ on_text.T + self.linear.bias)
