from __future__ import annotations

from typing import Any

import pytest
import torch
from mmengine.config import ConfigDict
from mmseg.registry import MODELS
from torch import Tensor, nn

SPLIT = {"classes": ["cat", "dog", "sofa"], "unseen": ["dog"]}


def build(clip: dict[str, Any], kind: str = "CLIPEncoderDecoder", **test: Any) -> nn.Module:
    torch.manual_seed(0)
    test_cfg = {"mode": "slide", "crop_size": (64, 64), "stride": (48, 40), **test}
    model = {
        "type": kind,
        "backbone": {"type": "CLIPBackbone", "clip": clip},
        "neck": {
            "type": "DLFANeck",
            "clip": clip,
            "text": {"type": "TemplatePrompts", "split": SPLIT},
        },
        "decode_head": {"type": "MPSAHead", "embed_dim": 32, "num_classes": 3},
        "test_cfg": test_cfg,
    }
    if kind == "CLIPEncoderDecoder":
        model["clip"] = clip
    return MODELS.build(ConfigDict(model)).eval()


def predict(model: nn.Module, images: Tensor) -> Tensor:
    with torch.no_grad():
        return torch.stack([sample.seg_logits.data for sample in model.predict(images)])


@pytest.mark.parametrize(
    ("size", "window_batch"), [((96, 160), 3), ((70, 200), 100), ((40, 90), 1), ((33, 20), 3)]
)
def test_numbers_are_mmsegs(size: tuple[int, int], window_batch: int, clip: dict) -> None:
    images = torch.randn(2, 3, *size)
    expected = predict(build(clip, "EncoderDecoder"), images)
    model = build(clip, window_batch=window_batch)
    assert (predict(model, images) - expected).abs().max() < 1e-5


def test_windows_go_through_the_backbone_together(clip: dict) -> None:
    model = build(clip, window_batch=4)
    sizes = []
    model.backbone.register_forward_pre_hook(lambda _, images: sizes.append(len(images[0])))
    predict(model, torch.randn(1, 3, 96, 160))  # 2 x 4 windows
    assert sizes == [4, 4]
