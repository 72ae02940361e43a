"""Shapes scenes: what they show, in mmseg's machinery, and on disk."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest
from mmseg.registry import DATASETS
from PIL import Image

from mmseg_otseg.datasets import PascalVOC20Dataset
from mmseg_otseg.datasets.shapes import (
    SHAPES_CLASSES,
    SHAPES_PALETTE,
    ShapesDataset,
    export_voc,
    get_world,
    render_scene,
)
from tools.shapes.captions import NUM_FACTS, VOCABULARY, caption_scene, scene_facts

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


def test_mistakes_are_named(tmp_path):
    export_voc(tmp_path, train=1, val=0)
    with pytest.raises(FileExistsError, match=str(tmp_path)):
        export_voc(tmp_path, train=1, val=0)
    with pytest.raises(ValueError, match=r"severity.*0\.95"):
        get_world("haze", 1.5)
    with pytest.raises(ValueError, match=r"'dev'.*train, val, test"):
        ShapesDataset(subset="dev")


# Scenes and captions ------------------------------------------------------------------------------


def test_scenes_are_the_recorded_ones():
    """The shipped CLIP and every published figure belong to exactly these images."""
    render_scene("crowd", "train", 3)  # what was drawn before does not matter
    scene = render_scene(get_world("haze", 0.6), "test", 7, seed=1)
    digest = hashlib.sha256(scene.image.tobytes() + scene.labels.tobytes()).hexdigest()
    assert digest[:16] == "8f112a03eb0c707d"


def test_captions_are_true_and_made_of_the_vocabulary():
    texts = set()
    for index in range(120):
        scene = render_scene("clean", "pretrain", index)
        caption, facts = caption_scene(scene, index), scene_facts(scene)
        assert caption.facts.shape == facts.shape == (NUM_FACTS,)
        assert not (caption.facts & ~facts).any(), caption.text
        named = {n for i, n in enumerate(SHAPES_CLASSES) if caption.facts[i]}
        assert named == {n for n in SHAPES_CLASSES if n in caption.text}
        words = caption.text.replace(",", " ,").replace(".", " .").split()
        assert set(words) <= set(VOCABULARY), caption.text
        for size, of_size in zip(("small", "medium", "large"), caption.facts[20:80].reshape(3, 20)):
            assert caption.text.count(size) == of_size.sum()
        texts.add(caption.text)
    assert any("part of" in t for t in texts) and any(" and " in t for t in texts)
    assert len(texts) > 60
