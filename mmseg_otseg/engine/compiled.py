"""The losses of a training step as one compiled graph."""

from __future__ import annotations

from typing import Any

import torch
from mmengine.structures import PixelData
from mmseg.structures import SegDataSample
from mmseg.utils import SampleList
from torch import Tensor

from .parts import segmentor


def compile_losses(model: Any, **options: Any) -> None:
    """Replace a segmentor's ``loss`` by what ``torch.compile`` makes of it.

    mmengine compiles ``train_step`` instead. In that are the paths and sizes of the images, which
    are new in every step, and the optimizer's learning rate, which is too: each step is compiled
    anew, until torch gives up.

    Args:
        model: A segmentor, or what wraps one.
        options: Of ``torch.compile``.
    """
    model = segmentor(model)
    compiled = torch.compile(model.loss, **options)

    def loss(inputs: Tensor, data_samples: SampleList) -> dict[str, Tensor]:
        return compiled(inputs, [_labels_alone(sample) for sample in data_samples])

    model.loss = loss


def _labels_alone(sample: SegDataSample) -> SegDataSample:
    """A sample that the next step's equals in all but values."""
    labels = sample.gt_sem_seg.data
    # Padded or not, the stride of the first axis, which has one row, shall be the same.
    return SegDataSample(gt_sem_seg=PixelData(data=labels.squeeze(0).contiguous().unsqueeze(0)))
