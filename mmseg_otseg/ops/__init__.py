"""The mathematics, on plain tensors: optimal transport, score maps, losses."""

from .mask_loss import FocalDiceSums, focal_dice_sums
from .multi_prompt import (
    multi_prompt_plan,
    multi_prompt_score,
    pixel_prompt_similarity,
    transport_score,
)
from .optimal_transport import SinkhornResult, sinkhorn

__all__ = [
    "FocalDiceSums",
    "SinkhornResult",
    "focal_dice_sums",
    "multi_prompt_plan",
    "multi_prompt_score",
    "pixel_prompt_similarity",
    "sinkhorn",
    "transport_score",
]
