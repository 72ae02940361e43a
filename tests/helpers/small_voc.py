"""The methods' VOC models over a small CLIP, and a training step of two images."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from mmengine.config import ConfigDict
from mmengine.structures import PixelData
from mmseg.registry import MODELS
from mmseg.structures import SegDataSample
from torch import Tensor, nn

from tests.helpers.small_configs import CLIP, small


def build(name: str, precision: str = "fp32") -> Any:
    """The model of a method, in which nothing is random after it is built."""
    torch.manual_seed(0)
    config = small(f"{name}/voc_512.py", Path("none")).model
    config.clip = ConfigDict(**CLIP, precision=precision)
    config.backbone.drop_path_rate = 0.0
    config.test_cfg = dict(mode="whole")
    model = MODELS.build(config).to(torch.get_default_device())
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
    return model


def losses(model: Any) -> dict[str, Tensor]:
    """Losses of two images with labels of the seen classes."""
    torch.manual_seed(1)
    label = torch.randint(0, 15, (8, 8)).repeat_interleave(8, 0).repeat_interleave(8, 1)
    sample = SegDataSample(gt_sem_seg=PixelData(data=label[None]))
    return model.loss(torch.randn(2, 3, 64, 64), [sample] * 2)


def gradients(model: nn.Module) -> dict[str, Any]:
    """Gradients of all that trains, by name."""
    return {name: p.grad for name, p in model.named_parameters() if p.requires_grad}
