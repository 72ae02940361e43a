"""Test-time augmentation equals the mean of the probabilities of all views."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from mmengine.config import ConfigDict
from mmseg.registry import MODELS
from mmseg.structures import SegDataSample

from tests.helpers.small_configs import small

IMAGE = (50, 72)  # rows and columns of the original images


def views(scales: list[float]) -> dict[str, list]:
    """Two images at some scales, as they are and flipped, as ``TestTimeAug`` gives them."""
    generator = torch.Generator().manual_seed(0)
    pixels = torch.randint(0, 256, (2, 3, *IMAGE), generator=generator).float()
    data: dict[str, list] = {"inputs": [], "data_samples": []}
    for scale in scales:
        resized = F.interpolate(pixels, scale_factor=scale, mode="bilinear")
        for flip, direction in ((False, None), (True, "horizontal"), (True, "vertical")):
            seen = resized.flip(2 if direction == "vertical" else 3) if flip else resized
            meta: dict[str, Any] = dict(ori_shape=IMAGE, flip=flip, flip_direction=direction)
            meta |= dict(img_shape=seen.shape[2:], pad_shape=seen.shape[2:])
            data["inputs"].append(list(seen))
            data["data_samples"].append([SegDataSample(metainfo=meta) for _ in seen])
    return data


@pytest.mark.parametrize("classes", [20, 1])
@pytest.mark.parametrize("size_divisor", [None, 32])
@pytest.mark.parametrize("method", ["otseg", "training_free"])
@torch.no_grad()
def test_equals_the_mean_of_the_probabilities(
    classes: int, size_divisor: int | None, method: str, tmp_path: Path
) -> None:
    config = small(f"{method}/voc_512.py", tmp_path).model
    if classes == 1:
        config.split = dict(classes=["cat"], unseen=[])
    if size_divisor:
        config.data_preprocessor.test_cfg = dict(size_divisor=size_divisor)
    torch.manual_seed(0)
    module: Any = MODELS.build(config).eval()
    model = MODELS.build(ConfigDict(type="ZeroShotTTAModel", module=module)).eval()
    found = model.test_step(views([0.75, 1.0]))
    mean = torch.zeros(2, classes, *IMAGE)
    data = views([0.75, 1.0])
    for inputs, samples in zip(data["inputs"], data["data_samples"]):
        batch = dict(inputs=inputs, data_samples=samples)
        for total, sample in zip(mean, module.test_step(batch)):
            values = sample.seg_logits.data  # padding and flip are undone
            total += F.interpolate(values[None], IMAGE, mode="bilinear")[0] / len(data["inputs"])
    best = mean.amax(1, keepdim=True)
    close = (mean > best - 1e-6).sum(1) > 1
    assert close.float().mean() < 0.01
    for sample, values, rounding in zip(found, mean, close):
        labels = sample.pred_sem_seg.data
        assert labels.shape == (1, *IMAGE) and "seg_logits" not in sample
        assert torch.equal(labels[0][~rounding], values.argmax(0)[~rounding])
    # A threshold that some pixels reach: it is that of the mean, not of each view.
    threshold = float(best.median())
    module.test_cfg.none_below = threshold
    for sample, values, rounding in zip(model.test_step(views([0.75, 1.0])), mean, close):
        largest, expected = values.max(0)
        expected[largest < threshold] = classes
        sure = ~rounding & ((largest - threshold).abs() > 1e-6)
        assert torch.equal(sample.pred_sem_seg.data[0][sure], expected[sure])
