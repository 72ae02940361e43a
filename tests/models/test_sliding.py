from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from mmengine.config import ConfigDict
from mmseg.registry import MODELS
from mmseg.structures import SegDataSample
from torch import Tensor, nn

from mmseg_otseg.models.segmentors import sliding
from tests.helpers.small_configs import small

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


@pytest.mark.parametrize("mode", ["whole", "slide"])
@pytest.mark.parametrize("method", ["otseg", "zegot", "zegclip", "training_free"])
def test_labels_placed_from_patches_are_those_of_whole_maps(
    method: str, mode: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sliding, "MAX_VALUES", 40_000)  # many tiles
    config = small(f"{method}/voc_512.py", tmp_path).model
    names = [f"thing {index}" for index in range(40)]
    config.split = dict(classes=["sofa | couch | settee", *names], unseen=names[20:])
    config.test_cfg = dict(mode=mode, crop_size=(64, 64), stride=(48, 40))
    shape = (171, 240)
    if method == "training_free":  # whose softmax is taken before maps are resized
        shape = (80, 128)
    else:
        config.test_cfg.none_below = 0.45
    torch.manual_seed(0)
    model = MODELS.build(config).eval()
    images = torch.randn(2, 3, 88, 136)
    meta = dict(ori_shape=shape, img_shape=(80, 128), padding_size=(0, 8, 0, 8), flip=True)

    def predict(keep_maps: bool) -> list[SegDataSample]:
        model.test_cfg.keep_maps = keep_maps
        samples = [
            SegDataSample(metainfo=dict(meta, flip_direction=direction))
            for direction in ("horizontal", "diagonal")
        ]
        with torch.no_grad():
            return model.predict(images, samples)

    for whole, patches in zip(predict(True), predict(False)):
        assert "seg_logits" not in patches
        expected, found = whole.pred_sem_seg.data[0], patches.pred_sem_seg.data[0]
        values = F.interpolate(whole.seg_logits.data[None], shape, mode="bilinear")[0]
        threshold = torch.full((1, *shape), model.test_cfg.get("none_below", -1.0))
        values = torch.cat([values, threshold])
        assert len(expected.unique()) > 1
        # Rounding alone may decide otherwise.
        chosen, best = (values.gather(0, labels[None])[0] for labels in (found, values.argmax(0)))
        assert (best - chosen).max() < 1e-6
        assert (found == expected).float().mean() > 0.99
