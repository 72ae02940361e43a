"""Metrics of zero-shot segmentation."""

from .seen_bias_sweep import (
    DEFAULT_BIASES,
    SeenBiasMetric,
    best_bias,
    store_seen_bias,
    sweep_seen_bias,
)
from .zero_shot_iou_metric import ZeroShotIoUMetric

__all__ = [
    "DEFAULT_BIASES",
    "SeenBiasMetric",
    "ZeroShotIoUMetric",
    "best_bias",
    "store_seen_bias",
    "sweep_seen_bias",
]
