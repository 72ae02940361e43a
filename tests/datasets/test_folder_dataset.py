"""Two folders are a dataset."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from mmengine.dataset import ClassBalancedDataset
from mmseg.registry import DATASETS
from PIL import Image

from mmseg_otseg.datasets import FolderDataset, ZeroShotDataset
from tests.helpers.folder_data import CLASSES, UNSEEN, label_files, write_folders

LOAD = [dict(type="LoadImageFromFile"), dict(type="LoadAnnotations"), dict(type="PackSegInputs")]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return write_folders(tmp_path / "data")


def dataset_of(root: Path, **changes) -> ZeroShotDataset:
    classes = changes.pop("classes", CLASSES)
    folder = dict(type="FolderDataset", data_root=str(root), serialize_data=False, **changes)
    return ZeroShotDataset(folder, dict(classes=classes, unseen=list(UNSEEN)), pipeline=LOAD)


def labels_in(dataset: ZeroShotDataset, index: int = 0) -> set[int]:
    return set(dataset[index]["data_samples"].gt_sem_seg.data.unique().tolist())


def test_finds_images_and_labels(root: Path) -> None:
    train, val = dataset_of(root), dataset_of(root, subset="val", test_mode=True)
    assert (len(train), len(val)) == (4, 2)
    assert labels_in(train) == {0, 1, 2, 4, 255} and labels_in(val) == {0, 1, 2, 3, 4}
    info = train.get_data_info(0)
    assert info["img_path"].endswith("images/train/train_0.jpg")
    assert info["seg_map_path"].endswith("labels/train/train_0.png")


@pytest.mark.parametrize(
    ("image", "label"),
    [
        ("{}.JPG", "{}.png"),
        ("{}.webp", "{}.bmp"),
        ("{}.tif", "{}_L.png"),
        ("town/{}.jpeg", "town/{}.png"),
    ],
)
def test_names_and_suffixes_are_found_by_looking(tmp_path: Path, image: str, label: str) -> None:
    for kind, pattern, shape in (("images", image, (8, 8, 3)), ("labels", label, (8, 8))):
        for name in ("a", "b", "b2"):
            path = tmp_path / kind / "train" / pattern.format(name)
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(np.zeros(shape, np.uint8)).save(path)
    dataset = dataset_of(tmp_path)
    assert len(dataset) == 3
    for index in range(3):
        info = dataset.get_data_info(index)
        pair = [Path(info[key]).stem for key in ("img_path", "seg_map_path")]
        assert pair[1].removesuffix("_L") == pair[0]
    assert labels_in(dataset) == {0}


def test_arguments(root: Path) -> None:
    with pytest.raises(FileNotFoundError, match="`data_root`"):
        FolderDataset(metainfo=dict(classes=CLASSES))
    with pytest.raises(ValueError, match=r"metainfo=dict\(classes="):
        FolderDataset(str(root))
    with pytest.raises(FileNotFoundError, match="images/test"):
        dataset_of(root, subset="test")


def test_class_balanced_sampling_does_not_know_unseen_classes(root: Path) -> None:
    names = list(CLASSES)
    rare = np.full((48, 64), names.index("sky"), np.uint8)
    for index, name in enumerate(("car", "tree", "sky", "sky")):
        rare[0, 0] = names.index(name)
        Image.fromarray(rare).save(label_files(root, "train")[index])
    folder = dict(type="FolderDataset", data_root=str(root))
    balanced = dict(type="ClassBalancedDataset", oversample_thr=1.0, dataset=folder)
    dataset = ZeroShotDataset(balanced, dict(classes=names, unseen=list(UNSEEN)), pipeline=LOAD)
    wrapped = dict(type="ZeroShotDataset", split=dataset.split, dataset=folder, pipeline=LOAD)
    around = DATASETS.build(dict(balanced, dataset=wrapped))
    for each in (dataset, around):
        paths = [Path(each.get_data_info(index)["img_path"]).stem for index in range(len(each))]
        assert paths == ["train_0", "train_0", "train_1", "train_2", "train_3"]
        assert labels_in(each, 2) == {0, 255}
    plain = FolderDataset(str(root), metainfo=dict(classes=names))
    assert len(ClassBalancedDataset(plain, oversample_thr=1.0)) == 6
