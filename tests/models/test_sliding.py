from __future__ import annotations

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from mmengine.config import ConfigDict
from mmseg.registry import MODELS
from mmseg.structures import SegDataSample
from torch import Tensor

from mmseg_otseg.imaging import labels_at_size
from mmseg_otseg.models.segmentors import resolve_model, sliding
from mmseg_otseg.models.segmentors.sliding import argmax_at_size
from tests.helpers.small_configs import small
from tools.benchmarks.memory import LiveBytes


@pytest.mark.parametrize(
    ("size", "window_batch"), [((96, 160), 3), ((70, 200), 100), ((40, 90), 1), ((33, 20), 3)]
)
def test_numbers_are_mmsegs(size: tuple[int, int], window_batch: int, tmp_path: Path) -> None:
    cfg = resolve_model(small("otseg/voc_512.py", tmp_path).model)
    cfg.test_cfg = dict(mode="slide", crop_size=(64, 64), stride=(48, 40))
    plain = {key: value for key, value in cfg.items() if key not in ("clip", "split")}
    theirs = MODELS.build(ConfigDict({**plain, "type": "EncoderDecoder"})).eval()
    cfg.test_cfg.window_batch = window_batch
    ours = MODELS.build(cfg).eval()
    assert theirs.load_state_dict(ours.state_dict(), strict=False) == ([], ["pixels"])
    images = torch.randn(2, 3, *size)
    with torch.no_grad():
        for found, expected in zip(ours.predict(images), theirs.predict(images), strict=True):
            assert (found.seg_logits.data - expected.seg_logits.data).abs().max() < 1e-5


def class_maps(classes: int, size: tuple[int, int], device: torch.device) -> Tensor:
    """Smooth probabilities (K, h, w)."""
    coarse = torch.randn(1, classes, *(max(2, length // 8) for length in size), device=device)
    return F.interpolate(coarse, size, mode="bicubic")[0].sigmoid()


@pytest.mark.parametrize(
    ("classes", "sizes", "new"),
    [
        (171, [(32, 48)], (200, 333)),
        (20, [(64, 50)], (20, 17)),
        (7, [(1, 9)], (5, 90)),
        (3, [(30, 30)], (1, 1)),
        (20, [(32, 48), (16, 24), (70, 90)], (200, 333)),
    ],
)
def test_is_the_best_class_of_the_resized_maps(
    device: torch.device,
    monkeypatch: pytest.MonkeyPatch,
    classes: int,
    sizes: list[tuple[int, int]],
    new: tuple[int, int],
) -> None:
    monkeypatch.setattr(sliding, "MAX_VALUES", 30_000)  # several bands
    torch.manual_seed(0)
    maps = [class_maps(classes, size, device) for size in sizes]
    resized = torch.cat([F.interpolate(values[None], new, mode="bilinear") for values in maps])
    best, expected = resized.sum(0).max(0)
    close = (resized.sum(0) > best - 1e-6).sum(0) > 1  # where rounding decides
    found, values = argmax_at_size(maps, new)
    assert found.shape == new and close.float().mean() < 0.01
    assert torch.equal(found[~close], expected[~close])
    torch.testing.assert_close(values, best, rtol=0, atol=1e-6)
    if len(maps) == 1:
        other = labels_at_size(maps[0].cpu().numpy(), new, None).astype("int64")
        assert torch.equal(torch.from_numpy(other).to(found)[~close], found[~close])


def test_maps_of_the_images_size_keep_their_values_in_any_precision() -> None:
    values = torch.rand(30, 100, 70)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found, best = argmax_at_size([values], (100, 70))
    assert torch.equal(best, values.amax(0)) and torch.equal(found, values.argmax(0))


def test_ties_and_values_that_are_not_finite() -> None:
    assert not argmax_at_size([torch.zeros(3, 4, 5)], (8, 9))[0].any()  # the first of equal classes
    with pytest.raises(ValueError, match="not finite"):
        argmax_at_size([torch.full((3, 4, 5), torch.nan)], (8, 9))


@pytest.mark.parametrize("mode", ["whole", "slide"])
@pytest.mark.parametrize(
    "config",
    ["otseg/voc_512.py", "zegot/voc_512.py", "zegclip/voc_512.py", "training_free/names.py"],
)
def test_labels_placed_from_patches_are_those_of_whole_maps(
    config: str, mode: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sliding, "MAX_VALUES", 40_000)  # many tiles
    cfg = small(config, tmp_path).model
    names = [f"thing {index}" for index in range(40)]
    cfg.split = dict(classes=["sofa | couch | settee", *names], unseen=names[20:])
    cfg.test_cfg = dict(mode=mode, crop_size=(64, 64), stride=(48, 40))
    shape = (171, 240)
    if "training_free" in config:  # its softmax is taken before maps are resized
        shape = (80, 128)
    else:
        cfg.test_cfg.none_below = 0.45
    torch.manual_seed(0)
    model = MODELS.build(cfg).eval()
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


@pytest.mark.parametrize("mode", ["whole", "slide"])
def test_memory_does_not_grow_with_classes_times_pixels(mode: str, tmp_path: Path) -> None:
    cfg = small("otseg/voc_512.py", tmp_path).model
    cfg.split = dict(classes=[f"thing {index}" for index in range(300)])
    cfg.test_cfg = dict(mode=mode, crop_size=(64, 64), stride=(48, 48), keep_maps=False)
    model = MODELS.build(cfg).eval()
    image = torch.randn(1, 3, 256, 384)
    with torch.no_grad(), LiveBytes() as live:
        (sample,) = model.predict(image)
    assert sample.pred_sem_seg.shape == (256, 384)
    assert live.peak < 4 * 300 * 256 * 384 / 3  # a third of float32 maps at the size of the image
