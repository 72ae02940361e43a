"""The plain formulation of what the package computes fast: what the benchmarks compare with."""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from mmseg_otseg.models import MPSAHead
from mmseg_otseg.models.decode_heads import MPSAMap
from mmseg_otseg.structures import AlignedFeatures


def plain_sinkhorn(
    cost: Tensor, epsilon: float = 0.05, max_iters: int = 100, tol: float = 1e-6
) -> Tensor:
    """Plans (P, M, N) of costs (P, M, N): logarithms, autograd through every iteration."""
    rows, columns = cost.shape[1:]
    u, v = torch.zeros_like(cost[:, :, 0]), torch.zeros_like(cost[:, 0])
    for _ in range(max_iters):
        before = u
        u = -epsilon * (torch.logsumexp((v[:, None] - cost) / epsilon, 2) + math.log(rows))
        v = -epsilon * (torch.logsumexp((u[:, :, None] - cost) / epsilon, 1) + math.log(columns))
        if (u - before).abs().mean() < tol:
            break
    return torch.exp((u[:, :, None] + v[:, None] - cost) / epsilon)


def plain_class_maps(head: MPSAHead, inputs: AlignedFeatures) -> tuple[Tensor, Tensor]:
    """Score and decoder maps (B, K, H, W) of a head with one level, as the formulas read."""
    decoder: Any = head.decoder
    patches = inputs.pixels[-1].flatten(2).transpose(1, 2)
    score, _ = _match(F.normalize(inputs.queries, dim=-1), patches, head.epsilon)
    queries, gate = inputs.queries, torch.ones_like(score)
    for layer in decoder.layers:
        class_map, plan = _map(layer.attention, queries, patches)
        attended = torch.einsum("bkmn,bmd->bknd", layer.dropout(plan), layer.value(patches))
        queries = layer.norm1(queries + layer.dropout(layer.proj(attended)))
        queries = layer.norm2(queries + layer.dropout(layer.feed_forward(queries)))
        gate = gate * class_map.sigmoid() ** (1 / len(decoder.layers))
    class_map, _ = _map(decoder.last, queries, patches)
    grid = inputs.pixels[-1].shape[2:]
    return score.unflatten(2, grid), (class_map * gate).unflatten(2, grid)


def _map(module: MPSAMap, queries: Tensor, patches: Tensor) -> tuple[Tensor, Tensor]:
    query = F.normalize(module.query(queries), dim=-1)
    key = F.normalize(module.key(patches), dim=-1)
    return _match(query, key, module.epsilon)


def _match(queries: Tensor, patches: Tensor, epsilon: float) -> tuple[Tensor, Tensor]:
    """Unit-length queries (B, K, N, D), patches (B, M, D) to map (B, K, M), plan (B, K, M, N)."""
    similarity = torch.einsum("bmd,bknd->bkmn", patches, queries)
    plan = plain_sinkhorn((1 - similarity).flatten(0, 1), epsilon).view_as(similarity)
    return (plan * similarity).sum(-1) * plan[0, 0].numel(), plan


def plain_focal_dice(
    logits: Tensor,
    target: Tensor,
    alpha: float = 0.25,
    gamma: float = 2.0,
    ignored: str = "negative",
    align_corners: bool = False,
) -> tuple[Tensor, Tensor, Tensor]:
    """What :func:`mmseg_otseg.ops.focal_dice_sums` returns, as the formulas read.

    Class maps are upsampled, labels become one-hot maps, and each loss is computed on its own.
    """
    classes = logits.shape[1]
    logits = F.interpolate(logits, target.shape[1:], mode="bilinear", align_corners=align_corners)
    labeled = (target >= 0) & (target < classes)
    one_hot = F.one_hot(target.where(labeled, classes), classes + 1)[..., :classes]
    truth = one_hot.permute(0, 3, 1, 2).to(logits.dtype)
    counted = labeled[:, None].to(logits.dtype) if ignored == "masked" else None
    focal = _focal_loss(logits, truth, alpha, gamma, counted)
    return (focal, *_dice_loss(logits, truth, counted))


def _focal_loss(
    logits: Tensor, truth: Tensor, alpha: float, gamma: float, counted: Tensor | None
) -> Tensor:
    p = logits.sigmoid()
    entropy = F.binary_cross_entropy_with_logits(logits, truth, reduction="none")
    p_truth = p * truth + (1 - p) * (1 - truth)
    loss = entropy * (1 - p_truth) ** gamma * (alpha * truth + (1 - alpha) * (1 - truth))
    if counted is None:
        return loss.mean((2, 3)).sum()
    return ((loss * counted).sum((2, 3)) / counted.sum((2, 3)).clamp_min(1)).sum()


def _dice_loss(logits: Tensor, truth: Tensor, counted: Tensor | None) -> tuple[Tensor, Tensor]:
    p = logits.sigmoid()
    if counted is not None:
        p = p * counted
    p, truth = p.flatten(2), truth.flatten(2)
    size = truth.sum(-1)
    loss = 1 - (2 * (p * truth).sum(-1) + 1) / (p.sum(-1) + size + 1)
    present = (size > 0).to(loss.dtype)
    return (loss * present).sum(), present.sum()
