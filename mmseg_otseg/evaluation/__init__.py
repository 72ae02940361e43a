"""Metrics of zero-shot segmentation."""

from .seen_bias_metric import DEFAULT_BIASES, SeenBiasMetric, best_bias
from .sweep import evaluation_only, store_seen_bias, sweep_seen_bias
from .zero_shot_iou_metric import ZeroShotIoUMetric

__all__ = [
    "DEFAULT_BIASES",
    "SeenBiasMetric",
    "ZeroShotIoUMetric",
    "best_bias",
    "evaluation_only",
    "store_seen_bias",
    "sweep_seen_bias",
]
