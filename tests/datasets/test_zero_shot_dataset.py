"""Unseen labels never leave the dataset in training, and stay whole in testing."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from mmengine.dataset import ConcatDataset, RepeatDataset
from mmseg.registry import DATASETS, TRANSFORMS
from PIL import Image
from torch.utils.data import DataLoader

from mmseg_otseg.datasets import ReproducibleInfiniteSampler, ZeroShotDataset

NAMES = ["sky", "road", "tree", "car"]
SPLIT = dict(classes=NAMES, unseen=["tree", "car"])  # 2 and 3
AUGMENT: list[dict[str, Any]] = [
    dict(type="LoadImageFromFile"),
    dict(type="LoadAnnotations"),
    dict(type="RandomResize", scale=(64, 48), ratio_range=(0.5, 2.0), keep_ratio=True),
    dict(type="RandomCrop", crop_size=(24, 24), cat_max_ratio=0.75),
    dict(type="RandomFlip", prob=0.5),
    dict(type="PhotoMetricDistortion"),
    dict(type="PackSegInputs"),
]


def random_labels(count: int = 4, height: int = 30, width: int = 40) -> list[np.ndarray]:
    rng = np.random.default_rng(1)
    values = np.array([0, 1, 2, 3, 255])
    return [values[rng.integers(0, 5, (height, width))] for _ in range(count)]


@pytest.mark.parametrize(
    ("setting", "expected"),
    [
        ("inductive", {0: 0, 1: 1, 2: 255, 3: 255, 255: 255}),
        ("transductive", {0: 0, 1: 1, 2: 254, 3: 254, 255: 255}),
        ("supervised", {0: 0, 1: 1, 2: 2, 3: 3, 255: 255}),
    ],
)
def test_labels_in_training_and_testing(write_data, config_of, label_of, setting, expected):
    labels = random_labels()
    config = config_of(write_data(labels))
    train = ZeroShotDataset(config, SPLIT, setting=setting)
    test = ZeroShotDataset({**config, "test_mode": True}, SPLIT, setting=setting)
    assert len(train) == 4 and test.test_mode and test.metainfo["hide_as"] is None
    for i, label in enumerate(labels):
        np.testing.assert_array_equal(label_of(train[i]), np.vectorize(expected.get)(label))
        np.testing.assert_array_equal(label_of(test[i]), label)


@pytest.mark.parametrize(("setting", "hidden"), [("inductive", 255), ("transductive", 254)])
def test_pascal_voc20(write_data, setting, hidden):
    """A label file with every value of VOC: 0 = background, 1..20, 255 = outline."""
    label = np.array([*range(21), 255, 255, 255], dtype=np.uint8).reshape(4, 6)
    root = write_data([label])
    mask = Image.fromarray(label)  # with a palette, as VOC's own: the values are its indices
    mask.putpalette(np.random.default_rng(0).integers(0, 256, 768).astype(np.uint8).tolist())
    mask.save(root / "labels" / "0.png")
    Image.open(root / "images" / "0.png").save(root / "images" / "0.jpg")
    (root / "val.txt").write_text("0\n")
    config = dict(
        type="PascalVOC20Dataset",
        data_root=str(root),
        data_prefix=dict(img_path="images", seg_map_path="labels"),
        ann_file="val.txt",
        pipeline=[dict(type="mmseg.LoadAnnotations")],
    )
    label = ZeroShotDataset(config, "voc", setting=setting)[0]["gt_seg_map"].ravel()
    assert label.tolist() == [255, *range(15), *[hidden] * 5, 255, 255, 255]


# The label is hidden where it appears --------------------------------------------------------


@TRANSFORMS.register_module()
class RecordLabels:
    """Remembers the label values it saw; for the tests of this file."""

    def __init__(self):
        self.values = set()

    def __call__(self, results):
        self.values |= set(np.unique(results["gt_seg_map"]).tolist())
        return results


@TRANSFORMS.register_module()
class LoadLabelsMyWay:
    """A loader that is no subclass of any other, and yields wide integers."""

    def __call__(self, results):
        results["seg_fields"].append("gt_seg_map")
        label = TRANSFORMS.build(dict(type="mmseg.LoadAnnotations"))(dict(results))["gt_seg_map"]
        results["gt_seg_map"] = label.astype(np.int64)
        return results


LOADERS: dict[str, list[dict[str, Any]]] = {
    "mmseg": [dict(type="LoadImageFromFile"), dict(type="LoadAnnotations")],
    "label first": [dict(type="LoadAnnotations"), dict(type="LoadImageFromFile")],
    "own": [dict(type="LoadImageFromFile"), dict(type="LoadLabelsMyWay")],
    "nested": [
        dict(
            type="RandomApply",
            prob=1.0,
            transforms=[
                dict(type="LoadImageFromFile"),
                dict(type="RandomChoice", transforms=[[dict(type="LoadAnnotations")]]),
                dict(type="RecordLabels"),
            ],
        ),
    ],
}


@pytest.mark.parametrize("loader", LOADERS)
def test_hidden_wherever_labels_are_read(write_data, config_of, label_of, loader):
    labels = [*random_labels(2), np.zeros((30, 40))]
    pipeline = [*LOADERS[loader], dict(type="RecordLabels"), dict(type="PackSegInputs")]
    config = config_of(write_data(labels))
    for setting, hidden in (("inductive", 255), ("transductive", 254)):
        dataset = ZeroShotDataset(config, SPLIT, setting=setting, pipeline=pipeline)
        for i, label in enumerate(labels):
            want = np.where((label == 2) | (label == 3), hidden, label)
            np.testing.assert_array_equal(label_of(dataset[i]), want)
        assert dataset.dataset.pipeline.transforms[-2].values == {0, 1, 255, hidden}
    assert len(ZeroShotDataset(config, SPLIT, drop_unseen_images=True, pipeline=pipeline)) == 1


def test_crop_sees_hidden_labels(write_data, config_of, label_of):
    # Left: half road, half car. Right: half road, half sky. With the car visible a crop of the left
    # side would do for cat_max_ratio; with it hidden only the right side has two classes.
    label = np.ones((20, 400), dtype=np.uint8)
    label[:10, :200], label[:10, 200:] = 3, 0
    pipeline = [*AUGMENT[:2], dict(AUGMENT[3], crop_size=(20, 20)), AUGMENT[-1]]
    config = config_of(write_data([label]))
    inductive = ZeroShotDataset(config, SPLIT, pipeline=pipeline)
    whole = ZeroShotDataset(config, SPLIT, setting="supervised", pipeline=pipeline)
    draws = [(0, seed) for seed in range(40)]

    def right_side(dataset):
        return np.mean([0 in label_of(dataset[draw]) for draw in draws])

    assert right_side(inductive) > 0.95  # ten attempts each
    assert right_side(whole) < 0.75


# Wrappers and mmengine's conventions ----------------------------------------------------------


def concat_config(config_of, roots) -> dict:
    return dict(type="ConcatDataset", datasets=[config_of(root) for root in roots])


def test_concatenated_and_repeated(write_data, config_of, label_of):
    labels = random_labels(5)
    roots = [write_data(labels[:2], "first"), write_data(labels[2:], "second")]
    config = dict(type="RepeatDataset", times=2, dataset=concat_config(config_of, roots))
    dataset = ZeroShotDataset(config, SPLIT)
    assert len(dataset) == 10
    for i in range(10):
        want = np.where(labels[i % 5] >= 2, 255, labels[i % 5])
        np.testing.assert_array_equal(label_of(dataset[i]), want)
    assert dataset.get_data_info(2)["seg_map_path"].startswith(str(roots[1]))
    augmented = ZeroShotDataset(config, SPLIT, pipeline=AUGMENT)
    values: set[int] = set()
    for i in range(60):
        assert augmented[i % 10]["inputs"].shape == (3, 24, 24)
        values |= set(np.unique(label_of(augmented[i % 10])).tolist())
    assert values == {0, 1, 255}


def test_objects_are_wrapped_and_left_alone(write_data, config_of, label_of):
    labels = random_labels()
    plain = DATASETS.build(config_of(write_data(labels)))
    want = np.where((labels[0] == 2) | (labels[0] == 3), 255, labels[0])
    for inner in (plain, ConcatDataset([plain]), RepeatDataset(plain, 2)):
        np.testing.assert_array_equal(label_of(ZeroShotDataset(inner, SPLIT)[0]), want)
    np.testing.assert_array_equal(label_of(plain[0]), labels[0])


def test_mosaic_of_hidden_labels(write_data, config_of, label_of):
    inner = dict(
        type="MultiImageMixDataset",
        dataset=concat_config(
            lambda root: config_of(root, pipeline=AUGMENT[:2]), [write_data(random_labels())]
        ),
        pipeline=[
            dict(type="RandomMosaic", prob=1.0, img_scale=(40, 40)),
            dict(type="PackSegInputs"),
        ],
    )
    dataset = ZeroShotDataset(inner, SPLIT)
    assert set(np.unique(label_of(dataset[0])).tolist()) == {0, 1, 255}


# Leaving out images with unseen classes ---------------------------------------------------------


def some_with_unseen() -> list[np.ndarray]:
    """Samples 1 and 4 hold an unseen class, sample 4 in a single pixel."""
    labels = [np.full((8, 8), i % 2) for i in range(6)]
    labels[1][2:4] = 2
    labels[4][7, 7] = 3
    labels[5][:] = 255
    return labels


def test_drop_that_cannot_be(write_data, config_of):
    config = config_of(write_data([np.full((8, 8), 3)]))
    with pytest.raises(ValueError, match="tree, car"):
        ZeroShotDataset(config, SPLIT, drop_unseen_images=True)
    for setting in ("transductive", "supervised"):
        with pytest.raises(ValueError, match=f"drop_unseen_images.*{setting}"):
            ZeroShotDataset(config, SPLIT, setting=setting, drop_unseen_images=True)


def test_drop_unseen_images(write_data, config_of, capsys):
    labels = some_with_unseen()
    only_unseen = [np.full((8, 8), 3)]
    roots = [write_data(part, str(i)) for i, part in enumerate([labels[:3], only_unseen, labels])]
    config = dict(type="RepeatDataset", times=2, dataset=concat_config(config_of, roots))
    dataset = ZeroShotDataset(config, SPLIT, drop_unseen_images=True)
    assert len(dataset) == 2 * (2 + 0 + 4)
    paths = [Path(dataset.get_data_info(i)["img_path"]) for i in range(len(dataset))]
    kept = [f"{path.parts[-3]}/{path.stem}" for path in paths]
    assert kept == 2 * ["0/0", "0/2", "2/0", "2/2", "2/3", "2/5"]
    assert "10/10" in capsys.readouterr().err
    assert all(len(dataset[i]) == 2 for i in range(len(dataset)))


# Reproducible samples -----------------------------------------------------------------------------


def same(a: dict, b: dict) -> bool:
    return torch.equal(a["inputs"], b["inputs"]) and torch.equal(
        a["data_samples"].gt_sem_seg.data, b["data_samples"].gt_sem_seg.data
    )


@pytest.fixture
def augmented(write_data, config_of):
    return ZeroShotDataset(config_of(write_data(random_labels())), SPLIT, pipeline=AUGMENT)


def test_same_seed_same_sample(augmented):
    first = augmented[1, 5]
    augmented[3], np.random.random(7), random.random()
    assert same(augmented[1, 5], first)
    assert not same(augmented[1, 6], first)
    assert not all(same(augmented[1], augmented[1]) for _ in range(3))  # without a seed


def test_workers_do_not_matter(augmented):
    def first_batches(num_workers: int) -> list[dict]:
        sampler = ReproducibleInfiniteSampler(augmented, seed=2)
        loader = DataLoader(
            augmented, batch_size=2, sampler=sampler, num_workers=num_workers, collate_fn=list
        )
        batches = iter(loader)
        return [sample for _ in range(3) for sample in next(batches)]

    for alone, worked in zip(first_batches(0), first_batches(2)):
        assert same(alone, worked)
