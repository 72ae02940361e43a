"""Restricts what each patch of a CLIP attends to, for segmentation without training."""

from __future__ import annotations

from functools import lru_cache

import torch
import torch.nn.functional as F
from torch import Tensor

LOCAL_ATTENTIONS = ("naclip", "sclip", "kk")
SIGMA = 5.0  # standard deviation of the window, in patches


def local_attention(
    kind: str, query: Tensor, key: Tensor, value: Tensor, grid: tuple[int, int]
) -> Tensor:
    """What the tokens of a block attend to if keys are compared with keys.

    With s the inverse root of d, and the softmax over the last dimension, the weights are

    - ``"naclip"``: softmax(s k k' + w), where w favors near patches, see :func:`gaussian_window`;
    - ``"sclip"``: softmax(s q q') + softmax(s k k'), a sum and not a mean;
    - ``"kk"``: softmax(s k k').

    In ``"naclip"`` and ``"kk"`` this, after the output projection, is meant to be the output of the
    block: without the residual and the feed-forward network, which ``"sclip"`` keeps.

    Args:
        kind: One of the above.
        query, key, value: Of the tokens [prefix, patches] of each head, shape (B, h, P + M, d).
        grid: Rows H and columns W of the M patches.

    Returns:
        Weighted values, shape (B, h, P + M, d).

    Raises:
        ValueError: If ``kind`` is unknown.

    Source:
        NACLIP (arXiv 2404.08181), SCLIP (arXiv 2312.01597).
    """
    if kind == "naclip":
        num_prefix = key.shape[-2] - grid[0] * grid[1]
        # A grid that is traced cannot be looked up.
        exporting = torch.compiler.is_exporting()
        make = gaussian_window.__wrapped__ if exporting else gaussian_window
        window = make(grid, num_prefix, dtype=key.dtype, device=key.device)
        return F.scaled_dot_product_attention(key, key, value, attn_mask=window)
    if kind == "sclip":
        of_queries = F.scaled_dot_product_attention(query, query, value)
        return of_queries + F.scaled_dot_product_attention(key, key, value)
    if kind == "kk":
        return F.scaled_dot_product_attention(key, key, value)
    raise ValueError(f"local attention must be one of {', '.join(LOCAL_ATTENTIONS)}, got {kind!r}")


@lru_cache(maxsize=4)  # one image size, and another for the last windows or a second model
def gaussian_window(
    grid: tuple[int, int],
    num_prefix: int,
    dtype: torch.dtype = torch.float32,
    device: torch.device | str = "cpu",
) -> Tensor:
    """A term for attention logits that favors near patches; made once for each grid.

    Args:
        grid: Rows H and columns W of patches.
        num_prefix: Number of tokens before the patches, P, which it leaves alone.
        dtype, device: Of the result.

    Returns:
        ``exp(-d^2 / (2 * 5^2))`` for two patches at a distance of d patches, 0 where one of the
        two tokens is a prefix token; shape (P + H * W, P + H * W).
    """
    rows, columns = (torch.arange(side, dtype=torch.float32) for side in grid)
    along_rows, along_columns = (
        torch.exp(-(places[:, None] - places).square() / (2 * SIGMA**2))
        for places in (rows, columns)
    )
    window = torch.kron(along_rows, along_columns)
    return F.pad(window, (num_prefix, 0, num_prefix, 0)).to(device, dtype)
