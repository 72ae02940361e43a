"""Multi-prompt transport between the pixels of an image and the prompts of a class.

As in the papers, a pixel is here one of the M places of a feature map. The rest of the package
calls it a patch, and an element of the image a pixel.
"""

from __future__ import annotations

import torch
from torch import Tensor

from mmseg_otseg.errors import UserError

from .optimal_transport import sinkhorn

TRANSPORTS = ("sinkhorn", "bipartite", "softmax", "none")


def pixel_prompt_similarity(pixels: Tensor, queries: Tensor) -> Tensor:
    """Inner products of every pixel with every prompt of every class.

    Args:
        pixels: Local features, shape (B, M, D); of unit length for cosine similarities.
        queries: Prompt features, shape (B, K, N, D), likewise.

    Returns:
        Similarities, shape (B, K, N, M).
    """
    batch, classes, prompts, _ = queries.shape
    flat = torch.bmm(queries.flatten(1, 2), pixels.transpose(1, 2))
    return flat.view(batch, classes, prompts, pixels.shape[1])


def multi_prompt_plan(
    similarity: Tensor, transport: str = "sinkhorn", epsilon: float = 0.05
) -> Tensor:
    """How much every prompt of a class takes from every pixel.

    Args:
        similarity: Cosine similarities, shape (B, K, N, M).
        transport: ``"sinkhorn"``: the optimal plan with uniform marginals at cost ``1 -
            similarity``, for each (image, class) on its own. ``"bipartite"``: that plan, rounded so
            that each pixel gives all its mass to one prompt (our reading of matching without
            entropy; no gradient flows through the plan). ``"softmax"``: each prompt attends to the
            pixels independently of the others, by a softmax at temperature ``epsilon`` scaled to
            mass 1/N. ``"none"``: every prompt takes 1/(M N) from every pixel.
        epsilon: Entropy weight of the plan, or the softmax's temperature.

    Returns:
        Plans of total mass 1 per (image, class), shape (B, K, N, M), float32 (or float64);
        ``"none"`` keeps the type of ``similarity``.

    Raises:
        UserError: If ``transport`` is unknown.

    Source:
        OTSeg (arXiv 2403.14183), section 3.2, Multi-Prompts Sinkhorn.
    """
    batch, classes, prompts, pixels = similarity.shape
    if transport in ("sinkhorn", "bipartite"):
        # Widened first: for S near 1, half precision leaves 1 - S only two or three digits.
        wide = similarity.to(torch.promote_types(similarity.dtype, torch.float32))
        cost = 1 - wide.flatten(0, 1).transpose(1, 2)
        if transport == "bipartite":
            cost = cost.detach()
        result = sinkhorn(cost, epsilon, cost_span=2.0)
        plan = result.plan.transpose(1, 2).view(batch, classes, prompts, pixels)
        if transport == "bipartite":
            best = plan.argmax(dim=2, keepdim=True)
            plan = torch.zeros_like(plan).scatter_(2, best, 1 / pixels)
        return plan
    if transport == "softmax":
        dtype = torch.promote_types(similarity.dtype, torch.float32)
        return torch.softmax(similarity / epsilon, dim=-1, dtype=dtype) / prompts
    if transport == "none":
        return torch.ones_like(similarity) / (prompts * pixels)
    raise UserError(f"transport must be one of {', '.join(TRANSPORTS)}, got {transport!r}")


def transport_score(similarity: Tensor, plan: Tensor) -> Tensor:
    """Score of every pixel for every class: its similarities to the prompts, weighted by the plan.

    ``score = sum_n M N T S``: with a uniform plan it is the sum of the similarities to the N
    prompts.

    Args:
        similarity: Cosine similarities, shape (B, K, N, M).
        plan: Plans of total mass 1, shape (B, K, N, M).

    Returns:
        Logits, shape (B, K, M).

    Source:
        OTSeg (arXiv 2403.14183), section 3.2, the Multi-Prompts Sinkhorn score map.
    """
    prompts, pixels = similarity.shape[-2:]
    return (plan * similarity.to(plan.dtype)).sum(2) * (prompts * pixels)


def multi_prompt_score(
    similarity: Tensor, transport: str = "sinkhorn", epsilon: float = 0.05
) -> Tensor:
    """:func:`transport_score` (B, K, M) of :func:`multi_prompt_plan`, which has these arguments."""
    return transport_score(similarity, multi_prompt_plan(similarity, transport, epsilon))
