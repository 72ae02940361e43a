"""The dataset configs load, and their pipelines run on data in the layout they name."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.runner import Runner
from PIL import Image

from mmseg_otseg.engine import resolve
from mmseg_otseg.structures import ClassSplit
from tests.helpers.paths import ROOT
from tests.helpers.tiny_clip import tiny_clip

FOLDER = ROOT / "configs" / "_base_" / "datasets"
SPLITS = {"voc_512": "voc", "context_480": "context", "cocostuff_512": "cocostuff"}
VOC, CONTEXT = "ImageSets/Segmentation", "ImageSets/SegmentationContext"
# Image, label and list for each split: train, (VOC only) aug, val
FILES: dict[str, list[tuple[str, str, str | None]]] = {
    "voc_512": [
        ("JPEGImages/a.jpg", "SegmentationClass/a.png", f"{VOC}/train.txt"),
        ("JPEGImages/b.jpg", "SegmentationClassAug/b.png", f"{VOC}/aug.txt"),
        ("JPEGImages/c.jpg", "SegmentationClass/c.png", f"{VOC}/val.txt"),
    ],
    "context_480": [
        ("JPEGImages/a.jpg", "SegmentationClassContext/a.png", f"{CONTEXT}/train.txt"),
        ("JPEGImages/c.jpg", "SegmentationClassContext/c.png", f"{CONTEXT}/val.txt"),
    ],
    "cocostuff_512": [
        (f"images/{part}/1.jpg", f"annotations/{part}/1_labelTrainIds.png", None)
        for part in ("train2017", "val2017")
    ],
}


@pytest.fixture(params=SPLITS)
def name(request):
    return request.param


@pytest.fixture
def config(name, tmp_path, monkeypatch):
    """The config, with data where it looks for them, relative to the current folder."""
    monkeypatch.chdir(tmp_path)
    config = Config.fromfile(FOLDER / f"{name}.py")
    classes = ClassSplit.build(SPLITS[name]).num_classes
    zero_is_background = name != "cocostuff_512"
    for i, (image, label, names) in enumerate(FILES[name]):
        root = tmp_path / config.data_root
        for path in filter(None, (image, label, names)):
            (root / path).parent.mkdir(parents=True, exist_ok=True)
        rng = np.random.default_rng(i)
        Image.fromarray(rng.integers(0, 256, (60, 80, 3), dtype=np.uint8)).save(root / image)
        values = rng.integers(0, classes + zero_is_background, (60, 80), dtype=np.uint8)
        values[0] = 255
        Image.fromarray(values).save(root / label)
        if names:
            (root / names).write_text(Path(image).stem + "\n")
    for part in ("train", "val", "test"):
        config[f"{part}_dataloader"].update(num_workers=0, persistent_workers=False)
    otseg = Config.fromfile(FOLDER.parent / "models" / "otseg.py").model
    config.model = {**otseg, "split": {"classes": SPLITS[name], "unseen": SPLITS[name]}}
    config.model["clip"] = {"model": tiny_clip(), "pretrained": None}
    return resolve(config)


def test_training_batches(name, config):
    loader = Runner.build_dataloader(config.train_dataloader, seed=0)
    assert len(loader.dataset) == (2 if name == "voc_512" else 1)
    split = ClassSplit.build(SPLITS[name])
    assert loader.dataset.metainfo["unseen"] == list(split.unseen)
    batch = next(iter(loader))
    assert len(batch["inputs"]) == 4
    side = config.crop_size[0]
    assert side == int(name.split("_")[1])
    for image, sample in zip(batch["inputs"], batch["data_samples"]):
        assert image.shape[0] == 3 and max(image.shape[1:]) <= side
        values = set(sample.gt_sem_seg.data.unique().tolist())
        assert len(values) > 5 and values <= {*split.seen, 255}


def test_testing_keeps_unseen_labels(name, config):
    loader = Runner.build_dataloader(config.test_dataloader, seed=0)
    (sample,) = next(iter(loader))["data_samples"]
    values = set(sample.gt_sem_seg.data.unique().tolist())
    split = ClassSplit.build(SPLITS[name])
    assert values == {*range(split.num_classes), 255}
    assert sample.gt_sem_seg.data.shape == (1, 60, 80)


def test_tta_as_mmsegs_tool_sets_it(config):
    config.test_dataloader.dataset.pipeline = config.tta_pipeline
    loader = Runner.build_dataloader(config.test_dataloader, seed=0)
    batch = next(iter(loader))
    assert len(batch["inputs"]) == 2 * len(config.img_ratios)
    assert torch.equal(batch["inputs"][0][0].flip(-1), batch["inputs"][1][0])
