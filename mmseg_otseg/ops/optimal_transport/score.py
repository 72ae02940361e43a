"""Score maps whose plan is never stored, by the fused kernels."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from .implicit import runs_fused
from .solvers import MAX_KERNEL_EXPONENT


def scores_fused(similarity: Tensor, epsilon: float) -> bool:
    """Whether :data:`score_operation` is asked for and takes these similarities.

    Args:
        similarity: Cosine similarities, shape (P, N, M).
        epsilon: Entropy weight of the plan.
    """
    return 2.0 / epsilon <= MAX_KERNEL_EXPONENT and runs_fused(similarity)


def _score(similarity: Tensor, epsilon: float, max_iters: int, tol: float) -> tuple[Tensor, Tensor]:
    from .triton_launch import fused_score

    return fused_score(similarity, epsilon, max_iters, tol)


def _score_gradient(
    similarity: Tensor, factors: Tensor, grad_score: Tensor, epsilon: float
) -> Tensor:
    from .triton_launch import fused_score_gradient

    return fused_score_gradient(similarity, factors, grad_score, epsilon)


# Similarities (P, N, M), contiguous, to scores (P, M); and what their gradient needs, (P, 2, N).
score_operation = torch.library.custom_op("mmseg_otseg::sinkhorn_score", _score, mutates_args=())
score_gradient_operation = torch.library.custom_op(
    "mmseg_otseg::sinkhorn_score_gradient", _score_gradient, mutates_args=()
)


@score_operation.register_fake
def _(similarity: Tensor, *_: Any) -> tuple[Tensor, Tensor]:
    problems, columns, rows = similarity.shape
    return similarity.new_empty(problems, rows), similarity.new_empty(problems, 2, columns)


@score_gradient_operation.register_fake
def _(similarity: Tensor, *_: Any) -> Tensor:
    return torch.empty_like(similarity)


def _keep_factors(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    similarity, ctx.epsilon, *_ = inputs
    _, factors = output
    ctx.save_for_backward(similarity, factors)
    ctx.mark_non_differentiable(factors)


def _backward(ctx: Any, grad_score: Tensor, _: Any) -> tuple[Tensor | None, ...]:
    return score_gradient_operation(*ctx.saved_tensors, grad_score, ctx.epsilon), None, None, None


score_operation.register_autograd(_backward, setup_context=_keep_factors)
