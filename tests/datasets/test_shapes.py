"""ShapesDataset in mmseg's machinery, and the same scenes on disk."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from mmseg.registry import DATASETS
from PIL import Image

from mmseg_otseg.datasets import PascalVOC20Dataset
from mmseg_otseg.datasets.shapes import (
    BACKGROUND,
    SHAPES_CLASSES,
    SHAPES_PALETTE,
    ShapesDataset,
    export_voc,
    get_world,
    render_scene,
)

LOAD = [dict(type="LoadShapesScene"), dict(type="PackSegInputs")]


def build(**options) -> ShapesDataset:
    options.setdefault("pipeline", LOAD)
    return DATASETS.build(dict(type="ShapesDataset", length=8, **options))


def test_items_are_the_scenes_in_bgr():
    dataset = build(world="crowd", subset="val", seed=2)
    assert len(dataset) == 8
    assert dataset.metainfo["classes"] == SHAPES_CLASSES
    assert dataset.metainfo["palette"] == SHAPES_PALETTE
    item, scene = dataset[5], render_scene("crowd", "val", 5, seed=2)
    image = item["inputs"].numpy()[::-1].transpose(1, 2, 0)
    np.testing.assert_array_equal(image, scene.image)
    np.testing.assert_array_equal(item["data_samples"].gt_sem_seg.data[0].numpy(), scene.labels)
    assert item["data_samples"].ori_shape == (64, 64)
    assert item["data_samples"].img_path == "shapes_crowd_val_2_000005.png"


def test_a_choice_of_classes_relabels_the_others():
    names = ("purple cross", "red circle")
    dataset = build(world="crowd", metainfo=dict(classes=names))
    whole = build(world="crowd")
    for index in range(8):
        labels = dataset[index]["data_samples"].gt_sem_seg.data
        full = whole[index]["data_samples"].gt_sem_seg.data
        assert torch.equal(labels == 0, full == SHAPES_CLASSES.index("purple cross"))
        assert torch.equal(labels == 1, full == SHAPES_CLASSES.index("red circle"))
        assert set(labels.unique().tolist()) <= {0, 1, BACKGROUND}
    assert dataset.metainfo["palette"] == [SHAPES_PALETTE[19], SHAPES_PALETTE[0]]


def test_bad_options_are_refused():
    with pytest.raises(ValueError, match=r"severity.*0\.95"):
        get_world("haze", 1.5)
    with pytest.raises(ValueError, match=r"'dev'.*train, val, test"):
        ShapesDataset(subset="dev")
    with pytest.raises(ValueError, match="'fog'"):
        ShapesDataset(world="fog")
    with pytest.raises(ValueError, match=r"length.* 0"):
        ShapesDataset(length=0)


def test_exported_scenes_are_those_of_the_dataset(tmp_path):
    root = export_voc(tmp_path / "data", train=3, val=2, aug=4, world="crowd", seed=1)
    assert root == tmp_path / "data" / "VOCdevkit" / "VOC2012"
    names = {
        p: (root / f"ImageSets/Segmentation/{p}.txt").read_text().split()
        for p in ("train", "aug", "val")
    }
    assert [len(names[p]) for p in ("train", "aug", "val")] == [3, 4, 2]
    assert len({n for part in names.values() for n in part}) == 9
    steps = ("LoadImageFromFile", "LoadAnnotations", "PackSegInputs")
    parts = (
        ("train", "SegmentationClass", 0, "train"),
        ("aug", "SegmentationClassAug", 3, "train"),
        ("val", "SegmentationClass", 0, "val"),
    )
    for part, masks, first, split in parts:
        voc = PascalVOC20Dataset(
            ann_file=f"ImageSets/Segmentation/{part}.txt",
            data_root=str(root),
            data_prefix=dict(img_path="JPEGImages", seg_map_path=masks),
            pipeline=[dict(type=step) for step in steps],
        )
        assert len(voc) == len(names[part])
        for index in range(len(voc)):
            scene = render_scene("crowd", split, first + index, seed=1)
            labels = voc[index]["data_samples"].gt_sem_seg.data[0].numpy()
            np.testing.assert_array_equal(labels, scene.labels)
            image = voc[index]["inputs"].numpy()[::-1].transpose(1, 2, 0).astype(int)
            assert np.abs(image - scene.image).mean() < 6  # JPEG
    mask = Image.open(root / "SegmentationClass" / "train_000000.png")
    assert mask.mode == "P"
    assert mask.getpalette()[3:63] == [v for rgb in SHAPES_PALETTE for v in rgb]


def test_export_refuses_to_overwrite(tmp_path):
    export_voc(tmp_path, train=1, val=0)
    with pytest.raises(FileExistsError, match=str(tmp_path)):
        export_voc(tmp_path, train=1, val=0)
    with pytest.raises(ValueError, match="-1, 0, 0"):
        export_voc(tmp_path / "other", train=-1, val=0)
