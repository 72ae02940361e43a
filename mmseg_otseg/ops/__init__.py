"""The mathematics, on plain tensors: optimal transport, score maps, losses."""

from .local_attention import LOCAL_ATTENTIONS, local_attention
from .mask_loss import FocalDiceSums, focal_dice_sums
from .multi_prompt import (
    multi_prompt_plan,
    multi_prompt_score,
    pixel_prompt_similarity,
    transport_score,
)
from .optimal_transport import SinkhornResult, sinkhorn
from .refinement import refine

__all__ = [
    "LOCAL_ATTENTIONS",
    "FocalDiceSums",
    "SinkhornResult",
    "focal_dice_sums",
    "local_attention",
    "multi_prompt_plan",
    "multi_prompt_score",
    "pixel_prompt_similarity",
    "refine",
    "sinkhorn",
    "transport_score",
]
