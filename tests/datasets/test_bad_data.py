"""Every mistake in the data or its config gives one error that names the file and the way out."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from mmseg.registry import DATASETS
from PIL import Image

from mmseg_otseg.datasets import ZeroShotDataset
from mmseg_otseg.datasets.guarded_pipeline import SampleError
from tests.helpers.hostile import png_of

NAMES = ["sky", "road", "tree", "car"]
SPLIT = dict(classes=NAMES, unseen=["tree", "car"])


@pytest.fixture
def root(write_data):
    return write_data([np.arange(20).reshape(4, 5) % 4 for _ in range(3)])


def raised(error: type[Exception], *words: str):
    """The error must hold all the words."""
    return pytest.raises(error, match="".join(f"(?=.*{word})" for word in words))


# Folders -----------------------------------------------------------------------------------------


def emptied(root: Path, folder: str) -> None:
    shutil.rmtree(root / folder)
    (root / folder).mkdir()
    (root / folder / "notes.txt").write_text("not an image")


def a_list(root: Path, content: bytes) -> None:
    (root / "list.txt").write_bytes(content)


IN_FOLDERS: list[tuple[Callable[[Path], Any], dict[str, str], tuple[str, ...]]] = [
    (
        lambda root: root.rename(root.with_name("elsewhere")),
        *({}, ("/data", "BaseSegDataset", "does not exist", "`data_root`")),
    ),
    (
        lambda root: shutil.rmtree(root / "images"),
        *({}, ("/images", "does not exist", r"data_prefix=dict\(img_path=...\)")),
    ),
    (
        lambda root: (shutil.rmtree(root / "labels"), a_list(root, b"0\n1\n")),
        *({"ann_file": "list.txt"}, ("/labels", "does not exist", "seg_map_path")),
    ),
    (lambda root: emptied(root, "labels"), {}, ("/labels", "files that end in '.png'")),
    (lambda root: None, {"img_suffix": ".jpg"}, ("images", "end in '.jpg'", "`img_suffix`")),
    (lambda root: None, {"ann_file": "list.txt"}, ("list.txt", "does not exist", "`ann_file`")),
    (lambda root: a_list(root, b""), {"ann_file": "list.txt"}, ("list.txt", "is empty")),
]


@pytest.mark.parametrize(("change", "options", "words"), IN_FOLDERS)
def test_missing_and_empty_folders_and_lists(root, config_of, change, options, words):
    change(root)
    inner = dict(type="ConcatDataset", datasets=[config_of(root, **options)])
    with raised(FileNotFoundError, *words):
        ZeroShotDataset(dict(type="RepeatDataset", times=2, dataset=inner), SPLIT)


@pytest.mark.parametrize(
    ("cls", "split", "labels", "words"),
    [
        ("PascalVOC20Dataset", "voc", "SegmentationClassAug", "voc_aug.py"),
        ("PascalContextDataset59", "context", "SegmentationClassContext", "pascal_context.py"),
    ],
)
def test_datasets_that_are_made_by_a_converter(tmp_path, cls, split, labels, words):
    prefix = dict(img_path="JPEGImages", seg_map_path=labels)
    config = dict(type=cls, data_root=str(tmp_path), data_prefix=prefix, ann_file="train.txt")
    (tmp_path / "JPEGImages").mkdir()
    Image.new("RGB", (4, 4)).save(tmp_path / "JPEGImages" / "0.jpg")
    with raised(FileNotFoundError, cls, labels, words):
        ZeroShotDataset(config, split)


def test_coco_stuff_before_its_conversion(tmp_path):
    """As it is published it has no ``_labelTrainIds`` files."""
    for kind, suffix, shape in (("images", "jpg", (4, 5, 3)), ("annotations", "png", (4, 5))):
        (tmp_path / kind).mkdir()
        Image.fromarray(np.full(shape, 181, np.uint8)).save(tmp_path / kind / f"0.{suffix}")
    prefix = dict(img_path="images", seg_map_path="annotations")
    config = dict(type="COCOStuffDataset", data_root=str(tmp_path), data_prefix=prefix)
    with raised(FileNotFoundError, "_labelTrainIds", "coco_stuff164k.py"):
        ZeroShotDataset(config, "cocostuff")


# Files -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("folder", "what"), [("images", "image"), ("labels", "label file")])
@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (lambda path: path.write_bytes(path.read_bytes()[:60]), ("cannot be decoded", "Replace")),
        (Path.unlink, ("does not exist", "`ann_file`")),
        (lambda path: path.write_bytes(png_of(30000, 30000)), ("30000 x 30000",)),
    ],
    ids=["truncated", "missing", "bomb"],
)
def test_files_that_cannot_be_read(root, config_of, damage, words, folder, what):
    (root / "list.txt").write_text("0\n1\n")
    path = root / folder / "1.png"
    damage(path)
    dataset = ZeroShotDataset(config_of(root, ann_file="list.txt"), SPLIT)
    dataset[0]
    with raised(SampleError, f"{what} {path}", *words):
        dataset[1]


# Label maps --------------------------------------------------------------------------------------


def whole(dtype: type, *other: float) -> Any:
    """A label map with the values 0, 1 and others."""
    label: Any = np.array([[0, 1, 1, 0, 1]] * 4, dtype)
    label[0, : len(other)] = other
    return label


@pytest.mark.parametrize(
    ("label", "suffix", "words"),
    [
        (whole(np.float32), "tif", None),
        (whole(bool), "png", None),
        (whole(np.int32, -1), "tif", "holds the values -1, but"),
        (whole(np.float32, 1.5), "tif", "not integers"),
    ],
)
def test_labels_are_the_values_of_the_file(root, config_of, label_of, label, suffix, words):
    for path in (root / "labels").iterdir():
        path.unlink()
    for index in range(3):
        Image.fromarray(label).save(root / "labels" / f"{index}.{suffix}")
    dataset = ZeroShotDataset(config_of(root, seg_map_suffix=f".{suffix}"), SPLIT)
    if words is None:
        np.testing.assert_array_equal(label_of(dataset[0]), label)
    else:
        with pytest.raises(SampleError, match=f"{root}/labels/0.{suffix}.*{words}"):
            dataset[0]


def test_palette_with_transparency_keeps_its_indices(root, config_of, label_of):
    image = Image.fromarray(whole(np.uint8, 2)).convert("P")
    image.putpalette([9, 9, 9] * 256)
    path = root / "labels" / "0.png"
    image.save(path, transparency=0)
    indices = np.array(Image.open(path))
    dataset = ZeroShotDataset(config_of(root), SPLIT, setting="supervised")
    np.testing.assert_array_equal(label_of(dataset[0]), indices)


def test_no_loader_for_labels(root, config_of):
    pipeline = [dict(type="LoadImageFromFile")]
    with raised(ValueError, "no transform .* reads the label", "LoadAnnotations"):
        ZeroShotDataset(config_of(root), SPLIT, drop_unseen_images=True, pipeline=pipeline)


# Arguments ---------------------------------------------------------------------------------------


def test_classes_of_every_wrapped_dataset_are_those_of_the_split(root, config_of):
    with raised(ValueError, "the split has 20 classes, the data 4", "metainfo"):
        ZeroShotDataset(config_of(root), "voc")
    other = config_of(root, metainfo=dict(classes=["sky", "tree", "road", "car"]))
    both = [config_of(root), other]
    joined = dict(type="ConcatDataset", datasets=both, ignore_keys=["classes", "palette"])
    for config in (other, joined, dict(type="RepeatDataset", times=2, dataset=joined)):
        with raised(ValueError, "index 1, the split has 'road', the data 'tree'"):
            ZeroShotDataset(config, SPLIT)


def test_a_config_without_class_names_takes_those_of_the_split(root, config_of):
    config = config_of(root, metainfo=None)
    twice = dict(type="ConcatDataset", datasets=[config, config])
    for dataset in (config, twice):
        assert list(ZeroShotDataset(dataset, SPLIT).metainfo["classes"]) == NAMES
    assert config["metainfo"] is None
    with raised(ValueError, "BaseSegDataset has no class names", "metainfo=dict"):
        ZeroShotDataset(DATASETS.build(config), SPLIT)


@pytest.mark.parametrize(
    ("changes", "options", "message"),
    [
        ({}, dict(setting="inductiv"), "'inductiv'.*inductive, transductive, supervised"),
        ({}, dict(split=None), "no class split"),
        (dict(test_mode=True), dict(drop_unseen_images=True), "drop_unseen_images is for training"),
        (dict(ignore_index=0), {}, "ignore_index=0 .*class 'sky'.*background"),
    ],
)
def test_arguments(root, config_of, changes, options, message):
    with pytest.raises(ValueError, match=message):
        ZeroShotDataset(config_of(root, **changes), **{"split": SPLIT, **options})


def test_what_cannot_be_wrapped(root, config_of):
    with raised(ValueError, "not ZeroShotDataset"):
        ZeroShotDataset(ZeroShotDataset(config_of(root), SPLIT), SPLIT)
