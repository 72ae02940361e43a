"""Compiles the losses of a training step into one graph."""

from __future__ import annotations

from typing import Any

import torch
from mmengine.structures import PixelData
from mmseg.structures import SegDataSample
from mmseg.utils import SampleList
from torch import Tensor

from .parts import segmentor


def compile_losses(model: Any, **options: Any) -> None:
    """Replace a segmentor's ``loss`` with its ``torch.compile`` version.

    mmengine would compile ``train_step``, which also depends on the image paths and sizes and on
    the learning rate. These change in every step, so torch would recompile each step until it
    reaches its recompilation limit.

    Args:
        model: A segmentor or a wrapper of one.
        options: Options of ``torch.compile``.
    """
    model = segmentor(model)
    compiled = torch.compile(model.loss, **options)

    def loss(inputs: Tensor, data_samples: SampleList) -> dict[str, Tensor]:
        return compiled(inputs, [_labels_alone(sample) for sample in data_samples])

    model.loss = loss


def _labels_alone(sample: SegDataSample) -> SegDataSample:
    """A sample with only its labels, so that nothing but values changes between steps."""
    labels = sample.gt_sem_seg.data
    # The stride of the first axis, of length 1, must not depend on whether the label was padded.
    return SegDataSample(gt_sem_seg=PixelData(data=labels.squeeze(0).contiguous().unsqueeze(0)))
