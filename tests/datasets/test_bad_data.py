"""Every mistake in the data or its config gives one error that names the file and the way out."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from mmseg.datasets import BaseSegDataset, COCOStuffDataset
from mmseg.registry import DATASETS
from PIL import Image
from torch.utils.data import DataLoader

from mmseg_otseg.datasets import ZeroShotDataset
from mmseg_otseg.datasets.guarded_pipeline import SampleError
from tests.helpers.claimed_size import png_of

NAMES = ["sky", "road", "tree", "car"]
SPLIT = dict(classes=NAMES, unseen=["tree", "car"])


@pytest.fixture
def root(write_data):
    return write_data([np.arange(20).reshape(4, 5) % 4 for _ in range(3)])


def raised(error: type[Exception], *words: str):
    """The error must hold all the words."""
    return pytest.raises(error, match="".join(f"(?=.*{word})" for word in words))


# Folders -----------------------------------------------------------------------------------------


def test_missing_root(root, config_of, monkeypatch):
    with raised(FileNotFoundError, "nowhere", "BaseSegDataset", "does not exist", "`data_root`"):
        ZeroShotDataset(config_of(root / "nowhere"), SPLIT)
    monkeypatch.chdir(root)
    with raised(FileNotFoundError, f"nowhere \\({root}/nowhere\\)"):
        ZeroShotDataset(config_of("nowhere"), SPLIT)
    inner = dict(type="ConcatDataset", datasets=[config_of(root), config_of(root / "nowhere")])
    with raised(FileNotFoundError, "nowhere"):
        ZeroShotDataset(dict(type="RepeatDataset", times=2, dataset=inner), SPLIT)


@pytest.mark.parametrize("folder", ["images", "labels"])
@pytest.mark.parametrize("with_list", [False, True])
@pytest.mark.parametrize("left", ["nothing", "empty", "other files"])
def test_missing_or_empty_folder(root, config_of, folder, with_list, left):
    shutil.rmtree(root / folder)
    if left != "nothing":
        (root / folder).mkdir()
    if left == "other files":
        (root / folder / "notes.txt").write_text("not an image")
    changes = {}
    if with_list:
        (root / "list.txt").write_text("0\n1\n")
        changes["ann_file"] = "list.txt"
    key = "img_path" if folder == "images" else "seg_map_path"
    state = "does not exist" if left == "nothing" else "files that end in '.png'"
    words = [f"{root}/{folder}", "`data_root`", f"data_prefix=dict\\({key}=...\\)", state]
    with raised(FileNotFoundError, *words):
        ZeroShotDataset(config_of(root, **changes), SPLIT)


@pytest.mark.parametrize("serialize_data", [True, False])
def test_wrong_suffix(root, config_of, serialize_data):
    config = config_of(root, img_suffix=".jpg", serialize_data=serialize_data)
    with raised(FileNotFoundError, "images", "end in '.jpg'", "`img_suffix`"):
        ZeroShotDataset(config, SPLIT)

    class PhotosDataset(BaseSegDataset):
        def __init__(self, **options):
            super().__init__(img_suffix=".jpg", **options)

    del config["img_suffix"]
    with raised(FileNotFoundError, f"{root}/images", "'.jpg'", "PhotosDataset"):
        ZeroShotDataset({**config, "type": PhotosDataset}, SPLIT)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (None, ("does not exist", "`ann_file`")),
        (b"", ("is empty", "`ann_file`")),
        (b"\n\n", ("is empty", "`ann_file`")),
        (b"\xff\xfe\x00", ("not text",)),
    ],
)
def test_lists(root, config_of, content, words):
    if content is not None:
        (root / "list.txt").write_bytes(content)
    with raised(FileNotFoundError, "list.txt", *words):
        ZeroShotDataset(config_of(root, ann_file="list.txt"), SPLIT)


@pytest.mark.parametrize(
    ("cls", "split", "existing", "labels", "ann_file", "words"),
    [
        ("PascalVOC20Dataset", "voc", "", "SegmentationClass", "train.txt", ("JPEGImages",)),
        ("PascalContextDataset59", "context", "", "Labels", "train.txt", ("JPEGImages",)),
        (
            *("PascalVOC20Dataset", "voc", "JPEGImages", "SegmentationClassAug", "aug.txt"),
            ("SegmentationClassAug", "dataset_converters/voc_aug.py"),
        ),
        (
            *("PascalContextDataset59", "context", "JPEGImages", "SegmentationClassContext"),
            *("val.txt", ("SegmentationClassContext", "dataset_converters/pascal_context.py")),
        ),
    ],
)
def test_datasets_that_assert_their_folders(
    tmp_path, cls, split, existing, labels, ann_file, words
):
    if existing:
        (tmp_path / existing).mkdir()
        Image.new("RGB", (4, 4)).save(tmp_path / existing / "0.jpg")
    config = dict(
        type=cls,
        data_root=str(tmp_path),
        data_prefix=dict(img_path="JPEGImages", seg_map_path=labels),
        ann_file=ann_file,
    )
    with raised(FileNotFoundError, str(tmp_path), cls, "does not exist", *words):
        ZeroShotDataset(config, split)


@pytest.fixture
def coco_stuff(tmp_path) -> dict:
    """COCO-Stuff as it is published: 182 values, and no ``_labelTrainIds`` files."""
    for kind, suffix, shape in (("images", "jpg", (4, 5, 3)), ("annotations", "png", (4, 5))):
        (tmp_path / kind).mkdir()
        Image.fromarray(np.full(shape, 181, np.uint8)).save(tmp_path / kind / f"0.{suffix}")
    prefix = dict(img_path="images", seg_map_path="annotations")
    load = [dict(type="LoadAnnotations")]
    return dict(type="COCOStuffDataset", data_root=str(tmp_path), data_prefix=prefix, pipeline=load)


def test_coco_stuff_before_its_conversion(coco_stuff):
    with raised(FileNotFoundError, "_labelTrainIds", "coco_stuff164k.py") as found:
        ZeroShotDataset(coco_stuff, "cocostuff")
    assert "seg_map_suffix" not in str(found.value)

    class Raw(COCOStuffDataset):
        def __init__(self, **options):
            super().__init__(seg_map_suffix=".png", **options)

    with raised(SampleError, "annotations/0.png", "181", "coco_stuff164k.py"):
        ZeroShotDataset({**coco_stuff, "type": Raw}, "cocostuff")[0]


def test_data_without_labels_may_be_tested_on(root, config_of):
    config = config_of(root / "images", test_mode=True, data_prefix=dict(img_path=""))
    pipeline = [dict(type="LoadImageFromFile"), dict(type="PackSegInputs")]
    assert ZeroShotDataset(config, SPLIT, pipeline=pipeline)[0]["inputs"].shape == (3, 4, 5)


def test_other_mistakes_keep_their_own_error(root, config_of):
    with pytest.raises(TypeError, match="no_such_key"):
        ZeroShotDataset(config_of(root, no_such_key=1), SPLIT)
    with pytest.raises(KeyError, match="NoSuchDataset"):
        ZeroShotDataset(config_of(root, type="NoSuchDataset"), SPLIT)


# Files -------------------------------------------------------------------------------------------

KINDS = pytest.mark.parametrize(("folder", "what"), [("images", "image"), ("labels", "label file")])


def damage(path: Path, how: str) -> None:
    whole = path.read_bytes()
    damaged = {"truncated": whole[: len(whole) // 2], "empty": b"", "not an image": b"hello"}
    path.write_bytes(damaged[how])


@pytest.mark.parametrize("how", ["truncated", "empty", "not an image"])
@KINDS
def test_files_that_cannot_be_decoded(root, config_of, how, folder, what):
    path = root / folder / "1.png"
    damage(path, how)
    for test_mode in (False, True):
        dataset = ZeroShotDataset(config_of(root, test_mode=test_mode), SPLIT)
        dataset[0]
        with raised(ValueError, f"{what} {path} cannot be decoded", "Replace the file"):
            dataset[1]


def test_error_reaches_the_loop_from_a_worker(root, config_of):
    damage(root / "images" / "1.png", "empty")
    dataset = ZeroShotDataset(config_of(root), SPLIT)
    batches = iter(DataLoader(dataset, sampler=[1], num_workers=1, collate_fn=list))
    with raised(ValueError, f"{root}/images/1.png"):
        next(batches)
    batches._shutdown_workers()  # type: ignore[attr-defined]  # the garbage collector would take five seconds for it


@KINDS
def test_file_of_the_list_is_missing(root, config_of, folder, what):
    (root / "list.txt").write_text("0\n1\n")
    (root / folder / "1.png").unlink()
    dataset = ZeroShotDataset(config_of(root, ann_file="list.txt"), SPLIT)
    with raised(SampleError, f"{what} {root}/{folder}/1.png does not exist", "`ann_file`"):
        dataset[1]


def test_failure_in_another_transform_names_the_files(root, config_of):
    pipeline = [dict(type="LoadImageFromFile"), lambda results: 1 / 0]
    dataset = ZeroShotDataset(config_of(root), SPLIT, pipeline=pipeline)
    with raised(SampleError, f"{root}/images/0.png", f"{root}/labels/0.png", "ZeroDivisionError"):
        dataset[0]


@KINDS
def test_pipes_and_bombs_are_refused_at_once(root, config_of, folder, what):
    pipe, bomb = root / folder / "1.png", root / folder / "2.png"
    pipe.unlink()
    os.mkfifo(pipe)
    bomb.write_bytes(png_of(30000, 30000))
    (root / "list.txt").write_text("0\n1\n2\n")
    dataset = ZeroShotDataset(config_of(root, ann_file="list.txt"), SPLIT)
    dataset[0]
    for index, path, reason in ((1, pipe, "pipe"), (2, bomb, "30000 x 30000")):
        with raised(ValueError, f"{what} {path}", reason):
            dataset[index]


# Label maps --------------------------------------------------------------------------------------


@pytest.mark.parametrize("test_mode", [False, True])
@pytest.mark.parametrize("values", [[4], [254], [4, 77, 254]])
def test_label_values_out_of_range(root, config_of, test_mode, values):
    label = np.zeros((4, 5), dtype=np.uint8)
    label[0, : len(values)] = values
    path = root / "labels" / "1.png"
    Image.fromarray(label).save(path)
    dataset = ZeroShotDataset(config_of(root, test_mode=test_mode), SPLIT)
    dataset[0]
    listed = ", ".join(map(str, values))
    with raised(
        ValueError, f"{path} holds the values {listed}, but", "0..3 and 255", "reduce_zero"
    ):
        dataset[1]
    with raised(ValueError, f"{path}", f"values {listed}"):
        dropping = config_of(root)
        ZeroShotDataset(dropping, SPLIT, drop_unseen_images=True)


def test_zero_as_the_background(write_data, config_of):
    root = write_data([np.arange(20).reshape(4, 5) % 5])
    ZeroShotDataset(config_of(root, reduce_zero_label=True), SPLIT)[0]


def whole(dtype: type, *other: float) -> Any:
    """A label map with the values 0, 1 and others."""
    label: Any = np.array([[0, 1, 1, 0, 1]] * 4, dtype)
    label[0, : len(other)] = other
    return label


@pytest.mark.parametrize(
    ("label", "suffix", "words"),
    [
        (whole(np.uint16), "png", None),
        (whole(np.uint16), "tif", None),
        (whole(np.int32), "tif", None),
        (whole(np.float32), "tif", None),
        (whole(bool), "png", None),
        (whole(np.uint16, 256), "png", "holds the values 256, but"),
        (whole(np.uint16, 65535), "tif", "holds the values 65535, but"),
        (whole(np.int32, -1), "tif", "holds the values -1, but"),
        (whole(np.int32, 257), "tif", "holds the values 257, but"),
        (whole(np.float32, 1.5), "tif", "not integers"),
        (whole(np.float32, np.nan), "tif", "not integers"),
        (whole(np.float32, np.inf), "tif", "holds the values inf"),
        (np.zeros((4, 5, 3), np.uint8), "png", r"shape \(4, 5, 3\).*single-channel"),
        (np.zeros((4, 5, 4), np.uint8), "png", r"shape \(4, 5, 4\).*single-channel"),
        (np.zeros((4, 5, 2), np.uint8), "png", r"shape \(4, 5, 2\).*single-channel"),
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


def test_gray_that_readers_scale_or_invert(root, config_of):
    names = [f"class {index}" for index in range(200)]  # 85 and 170 are classes, too
    dataset = ZeroShotDataset(
        config_of(root, metainfo=dict(classes=names), seg_map_suffix=".png"), dict(unseen=[3])
    )
    path = root / "labels" / "0.png"
    path.write_bytes(png_of(5, 4, gray_bits=2))
    with raised(SampleError, str(path), "8 bits"):
        dataset[0]
    Image.fromarray(whole(np.uint8)).save(path, format="TIFF", tiffinfo={262: 0})
    with raised(SampleError, str(path), "inverted"):
        dataset[0]


@pytest.mark.parametrize("size", [(7, 1), (1, 7), (1, 1)])
@pytest.mark.parametrize("like_it", [True, False])
def test_color_labels_one_pixel_wide(write_data, config_of, size, like_it):
    root = write_data([np.zeros(size), np.zeros(size)])
    path = root / "labels" / "0.png"
    Image.new("RGB", size[::-1]).save(path)
    if like_it:  # the image has the size that such a label is taken for
        Image.new("RGB", (3, max(size))).save(root / "images" / "0.png")
    dataset = ZeroShotDataset(config_of(root), SPLIT)
    with raised(ValueError, f"{path}"):
        dataset[0]
    assert dataset[1]["data_samples"].gt_sem_seg.data.shape == (1, *size)


@pytest.mark.parametrize("resized_first", [True, False])
def test_labels_of_another_size_than_the_image(root, config_of, resized_first):
    for name, size in (("0", (5, 4)), ("1", (4, 5)), ("2", (10, 8))):  # width x height
        Image.new("L", size).save(root / "labels" / f"{name}.png")
    resize = [dict(type="Resize", scale=(10, 8), keep_ratio=True)] if resized_first else []
    pipeline = [
        dict(type="LoadImageFromFile"),
        *resize,
        dict(type="LoadAnnotations"),
        dict(type="PackSegInputs"),
    ]
    dataset = ZeroShotDataset(config_of(root), SPLIT, pipeline=pipeline)
    dataset[0]
    for name, stated in (("1", "5 x 4"), ("2", "8 x 10")):
        files = f"{root}/images/{name}.png", f"{root}/labels/{name}.png"
        with raised(ValueError, *files, "4 x 5", stated, "same size"):
            dataset[int(name)]


def test_a_photograph_that_its_exif_tag_turns(root, config_of):
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (5, 4)).save(root / "images" / "0.jpg", exif=exif)
    (root / "list.txt").write_text("0\n")
    config = config_of(root, img_suffix=".jpg", ann_file="list.txt")
    with raised(SampleError, "images/0.jpg", "5 x 4", "4 x 5", "EXIF"):
        ZeroShotDataset(config, SPLIT)[0]
    Image.new("L", (4, 5)).save(root / "labels" / "0.png")
    assert ZeroShotDataset(config, SPLIT)[0]["inputs"].shape == (3, 5, 4)


def test_no_loader_for_labels(root, config_of):
    pipeline = [dict(type="LoadImageFromFile")]
    with raised(ValueError, "no transform .* reads the label", "LoadAnnotations"):
        ZeroShotDataset(config_of(root), SPLIT, drop_unseen_images=True, pipeline=pipeline)


def test_without_a_single_labeled_pixel(write_data, config_of, label_of):
    dataset = ZeroShotDataset(config_of(write_data([np.full((4, 5), 255)])), SPLIT)
    assert torch.equal(dataset[0]["data_samples"].gt_sem_seg.data, torch.full((1, 4, 5), 255))


# Arguments ---------------------------------------------------------------------------------------


def test_other_classes_than_the_splits(root, config_of):
    with raised(ValueError, "the split has 20 classes, the data 4", "metainfo"):
        ZeroShotDataset(config_of(root), "voc")
    renamed = config_of(root, metainfo=dict(classes=["sky", "street", "tree", "car"]))
    with raised(ValueError, "index 1, the split has 'road', the data 'street'"):
        ZeroShotDataset(renamed, SPLIT)


def test_every_dataset_in_a_wrapper_has_the_names_of_the_split(root, config_of):
    other = config_of(root, metainfo=dict(classes=["sky", "tree", "road", "car"]))
    both = [config_of(root), other]
    joined = dict(type="ConcatDataset", datasets=both, ignore_keys=["classes", "palette"])
    for config in (joined, dict(type="RepeatDataset", times=2, dataset=joined)):
        with raised(ValueError, "index 1, the split has 'road', the data 'tree'"):
            ZeroShotDataset(config, SPLIT)


def test_data_without_class_names(root, config_of):
    plain = DATASETS.build(config_of(root, metainfo=None))
    with raised(ValueError, "BaseSegDataset has no class names", "metainfo=dict"):
        ZeroShotDataset(plain, SPLIT)


def test_a_config_without_class_names_takes_those_of_the_split(root, config_of):
    config = config_of(root, metainfo=None)
    twice = dict(type="ConcatDataset", datasets=[config, config])
    for dataset in (config, twice):
        assert list(ZeroShotDataset(dataset, SPLIT).metainfo["classes"]) == NAMES
    assert config["metainfo"] is None


@pytest.mark.parametrize(
    ("changes", "options", "message"),
    [
        ({}, dict(setting="inductiv"), "'inductiv'.*inductive, transductive, supervised"),
        ({}, dict(split=dict(classes=NAMES, unseen=[4])), "out of range"),
        ({}, dict(split=None), "no class split"),
        (dict(test_mode=True), dict(drop_unseen_images=True), "drop_unseen_images is for training"),
        (dict(ignore_index=0), {}, "ignore_index=0.*255.*background"),
        (
            dict(metainfo=dict(classes=[f"class {i}" for i in range(255)])),
            dict(split=dict(unseen=[1])),
            "255 classes are too many",
        ),
    ],
)
def test_arguments(root, config_of, changes, options, message):
    with pytest.raises(ValueError, match=message):
        ZeroShotDataset(config_of(root, **changes), **{"split": SPLIT, **options})


def test_mixed_test_modes(root, config_of):
    both = [config_of(root), config_of(root, test_mode=True)]
    with raised(ValueError, "some of the wrapped datasets have test_mode=True"):
        ZeroShotDataset(dict(type="ConcatDataset", datasets=both), SPLIT)


def test_no_dataset(root, config_of):
    with raised(ValueError, "not list"):
        ZeroShotDataset([1, 2], SPLIT)
    with raised(ValueError, "not ZeroShotDataset"):
        ZeroShotDataset(ZeroShotDataset(config_of(root), SPLIT), SPLIT)
