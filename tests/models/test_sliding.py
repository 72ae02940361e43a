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


@pytest.mark.parametrize("window_batch", [1, 3, 100])
@pytest.mark.parametrize("size", [(64, 64), (96, 160), (70, 200), (40, 90), (33, 20)])
def test_numbers_are_mmsegs(size: tuple[int, int], window_batch: int, clip: dict) -> None:
    images = torch.randn(2, 3, *size)
    expected = predict(build(clip, "EncoderDecoder"), images)
    model = build(clip, window_batch=window_batch)
    assert (predict(model, images) - expected).abs().max() < 1e-5


@pytest.mark.parametrize("window_batch", [2, 4])
def test_windows_go_through_the_backbone_together(window_batch: int, clip: dict) -> None:
    model = build(clip, window_batch=window_batch)
    sizes = []
    model.backbone.register_forward_pre_hook(lambda _, images: sizes.append(len(images[0])))
    predict(model, torch.randn(1, 3, 96, 160))  # 2 x 4 windows
    assert sizes == [window_batch] * (8 // window_batch)


def test_meta_information_is_left_alone(clip: dict) -> None:
    model = build(clip)
    meta = {"ori_shape": (96, 160), "img_shape": (96, 160)}
    with torch.no_grad():
        model.inference(torch.randn(1, 3, 96, 160), [meta])
    assert meta["img_shape"] == (96, 160)


def test_whole_mode_is_mmsegs(clip: dict) -> None:
    images = torch.randn(1, 3, 96, 160)
    expected = predict(build(clip, "EncoderDecoder", mode="whole"), images)
    assert torch.equal(predict(build(clip, mode="whole"), images), expected)


@pytest.mark.parametrize("window_batch", [0, -1, 1.5, "all"])
def test_wrong_window_batch(window_batch: object, clip: dict) -> None:
    with pytest.raises(ValueError, match="window_batch"):
        predict(build(clip, window_batch=window_batch), torch.randn(1, 3, 64, 64))
