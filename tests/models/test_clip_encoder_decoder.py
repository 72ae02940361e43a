from __future__ import annotations

from pathlib import Path

import numpy as np
import open_clip
import pytest
import torch
from mmseg.apis import MMSegInferencer, init_model
from mmseg.models.segmentors import EncoderDecoder
from mmseg.registry import MODELS
from mmseg.structures import SegDataSample

from mmseg_otseg.errors import UserError
from mmseg_otseg.models.segmentors import resolve_model
from tests.helpers.small_configs import small
from tests.helpers.tiny_clip import tiny_clip


def test_one_line_changes_the_clip_of_all_parts(tmp_path: Path) -> None:
    cfg = small("zegot/voc_512.py", tmp_path)
    other = tiny_clip(patch_size=8, width=60, head_width=20, layers=7)
    cfg.model.clip.model = {**other, "embed_dim": 24}
    torch.manual_seed(0)
    model = MODELS.build(cfg.model).eval()
    assert model.backbone.visual.conv1.weight.shape == (60, 3, 8, 8)
    assert len(model.backbone.visual.transformer.resblocks) == 7
    assert model.neck.text.embed_dim == model.decode_head.channels == 24
    with torch.no_grad():
        assert model.predict(torch.randn(1, 3, 40, 48))[0].pred_sem_seg.shape == (40, 48)


def test_class_maps_never_have_the_size_of_a_large_image(tmp_path: Path) -> None:
    model = MODELS.build(small("otseg/voc_512.py", tmp_path).model).eval()
    maps = torch.rand(1, 20, 48, 64)
    meta = dict(ori_shape=(500, 700), img_padding_size=(0, 4, 0, 8), flip=True)
    sample = SegDataSample(metainfo=dict(meta, flip_direction="horizontal"))
    model.inference = lambda *_: maps
    (found,) = model.predict(torch.zeros(1, 3, 48, 64), [sample])
    assert torch.equal(found.seg_logits.data, maps[0, :, :40, :60].flip(2))
    (theirs,) = EncoderDecoder.postprocess_result(
        model, maps, [SegDataSample(metainfo=sample.metainfo)]
    )
    best = theirs.seg_logits.data.topk(2, 0).values
    clear = best[0] - best[1] > 1e-6  # elsewhere rounding decides
    assert clear.float().mean() > 0.99 and found.pred_sem_seg.shape == (500, 700)
    assert torch.equal(found.pred_sem_seg.data[0][clear], theirs.pred_sem_seg.data[0][clear])


def test_a_checkpoint_of_other_pixels_is_refused(tmp_path: Path) -> None:
    config = small("otseg/voc_512.py", tmp_path).model
    state = MODELS.build(config).state_dict()
    assert state["pixels"][0].tolist() == pytest.approx([123.675, 116.28, 103.53])
    config.data_preprocessor.update(mean=None, std=None)  # CLIP's own
    other = MODELS.build(config)
    with pytest.raises(ValueError, match=r"123\.675.*122\.771.*data_preprocessor"):
        other.load_state_dict(state)
    del state["pixels"]  # as in files of version 0.1
    other.load_state_dict(state)


def test_one_clip_is_built_for_all_parts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    built = []

    class Counted(open_clip.CLIP):
        def __init__(self, *args: object, **kwargs: object) -> None:
            built.append(self)
            super().__init__(*args, **kwargs)

    monkeypatch.setattr(open_clip, "CLIP", Counted)
    config = small("zegot/voc_512.py", tmp_path).model
    first, second = MODELS.build(config), MODELS.build(config)
    assert len(built) == 2
    assert first.backbone.visual.proj is not second.backbone.visual.proj
    assert first.neck.text.text_tower is not second.neck.text.text_tower


def test_pixels_are_normalized_as_the_config_says(tmp_path: Path) -> None:
    config = small("otseg/voc_512.py", tmp_path).model
    imagenet = [123.675, 116.28, 103.53]
    assert MODELS.build(config).data_preprocessor.mean.flatten().tolist() == pytest.approx(imagenet)
    config.data_preprocessor.update(mean=None, std=None)
    processor = MODELS.build(config).data_preprocessor
    expected = [255 * part for part in open_clip.OPENAI_DATASET_STD]
    assert processor.std.flatten().tolist() == pytest.approx(expected)
    config.data_preprocessor.pop("bgr_to_rgb")
    with pytest.raises(ValueError, match="bgr_to_rgb=True"):
        MODELS.build(config)


def test_a_typo_in_the_mode_of_testing(tmp_path: Path) -> None:
    config = small("otseg/voc_512.py", tmp_path).model
    config.test_cfg.mode = "wole"
    with pytest.raises(UserError, match=r"test_cfg\.mode.*whole, slide.*'wole'"):
        resolve_model(config)


def test_mmsegs_tools_show_the_models_classes(tmp_path: Path) -> None:
    """A checkpoint of one dataset, tested on another: the legend is that of the test's classes."""
    config = small("otseg/voc_512.py", tmp_path)
    torch.manual_seed(0)
    names = MODELS.build(config.model).neck.text.split.classes
    meta = {"classes": names[::-1], "palette": [[i, 0, 0] for i in range(len(names))]}
    state = MODELS.build(config.model).state_dict()
    torch.save({"state_dict": state, "meta": {"dataset_meta": meta}}, tmp_path / "w.pth")
    model = init_model(config, str(tmp_path / "w.pth"), device="cpu")
    assert model.dataset_meta["classes"] == names
    assert model.dataset_meta["palette"] == meta["palette"][::-1]  # a name keeps its color
    config.dump(str(tmp_path / "config.py"))
    stock = MMSegInferencer(str(tmp_path / "config.py"), str(tmp_path / "w.pth"), device="cpu")
    stock(np.zeros((64, 64, 3), np.uint8), return_vis=True)
    assert tuple(stock.visualizer.dataset_meta["classes"]) == names
