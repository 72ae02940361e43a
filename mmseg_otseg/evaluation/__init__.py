"""Metrics of zero-shot segmentation."""

from .seen_bias_metric import SeenBiasMetric
from .zero_shot_iou_metric import ZeroShotIoUMetric

__all__ = ["SeenBiasMetric", "ZeroShotIoUMetric"]
