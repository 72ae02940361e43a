"""Shapes scenes: what they show, in mmseg's machinery, and on disk."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest
from mmseg.registry import DATASETS

from mmseg_otseg.datasets import PascalVOC20Dataset
from mmseg_otseg.datasets.shapes import (
    SHAPES_CLASSES,
    SHAPES_PALETTE,
    ShapesDataset,
    export_voc,
    render_scene,
)
from tools.shapes.captions import NUM_FACTS, VOCABULARY, caption_scene, scene_facts

LOAD = [dict(type="LoadShapesScene"), dict(type="PackSegInputs")]


def build(**options) -> ShapesDataset:
    options.setdefault("pipeline", LOAD)
    return DATASETS.build(dict(type="ShapesDataset", length=8, **options))


def test_items_are_the_scenes_in_bgr():
    dataset = build(subset="val", seed=2)
    assert len(dataset) == 8
    assert dataset.metainfo["classes"] == SHAPES_CLASSES
    assert dataset.metainfo["palette"] == SHAPES_PALETTE
    item, scene = dataset[5], render_scene("val", 5, seed=2)
    image = item["inputs"].numpy()[::-1].transpose(1, 2, 0)
    np.testing.assert_array_equal(image, scene.image)
    np.testing.assert_array_equal(item["data_samples"].gt_sem_seg.data[0].numpy(), scene.labels)
    assert item["data_samples"].ori_shape == (64, 64)
    assert item["data_samples"].img_path == "shapes_val_2_000005.png"


@pytest.mark.parametrize(
    ("part", "masks", "subset", "first", "count"),
    [
        ("train", "SegmentationClass", "train", 0, 3),
        ("aug", "SegmentationClassAug", "train", 3, 4),
        ("val", "SegmentationClass", "val", 0, 2),
    ],
)
def test_exported_scenes_are_those_of_the_dataset(tmp_path, part, masks, subset, first, count):
    root = export_voc(tmp_path / "data", train=3, val=2, aug=4, seed=1)
    assert root == tmp_path / "data" / "VOCdevkit" / "VOC2012"
    voc = PascalVOC20Dataset(
        ann_file=f"ImageSets/Segmentation/{part}.txt",
        data_root=str(root),
        data_prefix=dict(img_path="JPEGImages", seg_map_path=masks),
        pipeline=[dict(type="LoadImageFromFile"), dict(type="LoadAnnotations"), LOAD[1]],
    )
    assert len(voc) == count
    for index in range(count):
        scene = render_scene(subset, first + index, seed=1)
        labels = voc[index]["data_samples"].gt_sem_seg.data[0].numpy()
        np.testing.assert_array_equal(labels, scene.labels)
        image = voc[index]["inputs"].numpy()[::-1].transpose(1, 2, 0).astype(int)
        assert np.abs(image - scene.image).mean() < 6  # JPEG


def test_mistakes_are_named(tmp_path):
    export_voc(tmp_path, train=1, val=0)
    with pytest.raises(FileExistsError, match=str(tmp_path)):
        export_voc(tmp_path, train=1, val=0)
    with pytest.raises(ValueError, match=r"'dev'.*train, val, test"):
        ShapesDataset(subset="dev")


# Scenes and captions ------------------------------------------------------------------------------


def test_scenes_are_the_recorded_ones():
    """The shipped CLIP and every published figure belong to exactly these images."""
    render_scene("train", 3)  # what was drawn before does not matter
    scene = render_scene("test", 7, seed=1)
    digest = hashlib.sha256(scene.image.tobytes() + scene.labels.tobytes()).hexdigest()
    assert digest[:16] == "cc7abb32ce53c812"


def test_captions_are_true_and_made_of_the_vocabulary():
    texts = set()
    for index in range(120):
        scene = render_scene("pretrain", index)
        caption, facts = caption_scene(scene, index), scene_facts(scene)
        assert caption.facts.shape == facts.shape == (NUM_FACTS,)
        assert not (caption.facts & ~facts).any(), caption.text
        named = {n for i, n in enumerate(SHAPES_CLASSES) if caption.nouns[i]}
        assert named == {n for n in SHAPES_CLASSES if n in caption.text}
        words = caption.text.replace(",", " ,").replace(".", " .").split()
        assert set(words) <= set(VOCABULARY), caption.text
        for size, of_size in zip(("small", "medium", "large"), caption.facts[20:80].reshape(3, 20)):
            assert caption.text.count(size) == of_size.sum()
        texts.add(caption.text)
    assert any("part of" in t for t in texts) and any(" and " in t for t in texts)
    assert len(texts) > 60
