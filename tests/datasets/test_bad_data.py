"""Every mistake in the data or its config gives one error that names the file and the way out."""

from __future__ import annotations

import os
import shutil

import numpy as np
import pytest
import torch
from mmseg.datasets import BaseSegDataset
from mmseg.registry import DATASETS
from PIL import Image
from torch.utils.data import DataLoader

from mmseg_otseg.datasets import ZeroShotDataset
from mmseg_otseg.datasets.guarded_pipeline import MissingFileError, SampleError
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


def test_missing_root(root, config_of):
    config = config_of(root / "nowhere")
    with raised(FileNotFoundError, "nowhere", "BaseSegDataset", "does not exist", "`data_root`"):
        ZeroShotDataset(config, SPLIT)


def test_relative_paths_are_named_in_full(tmp_path, config_of, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with raised(FileNotFoundError, f"nowhere \\({tmp_path}/nowhere\\)"):
        ZeroShotDataset(config_of("nowhere"), SPLIT)


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
    words = [f"{root}/{folder}", "`data_root`", f"data_prefix=dict\\({key}=...\\)"]
    if left == "nothing":
        words.append("does not exist")
    else:
        words.append("files that end in '.png'")
    with raised(FileNotFoundError, *words):
        ZeroShotDataset(config_of(root, **changes), SPLIT)


@pytest.mark.parametrize("serialize_data", [True, False])
def test_wrong_suffix(root, config_of, serialize_data):
    config = config_of(root, img_suffix=".jpg", serialize_data=serialize_data)
    with raised(FileNotFoundError, "images", "end in '.jpg'", "`img_suffix`"):
        ZeroShotDataset(config, SPLIT)


def test_missing_list(root, config_of):
    with raised(FileNotFoundError, "list.txt", "does not exist", "`ann_file`"):
        ZeroShotDataset(config_of(root, ann_file="list.txt"), SPLIT)


@pytest.mark.parametrize("text", ["", "\n\n"])
@pytest.mark.parametrize("serialize_data", [True, False])
def test_empty_list(root, config_of, text, serialize_data):
    (root / "list.txt").write_text(text)
    config = config_of(root, ann_file="list.txt", serialize_data=serialize_data)
    with raised(FileNotFoundError, "list.txt", "is empty", "`ann_file`"):
        ZeroShotDataset(config, SPLIT)


def test_a_list_that_is_no_text(root, config_of):
    config = config_of(root, ann_file="list.txt")
    (root / "list.txt").write_bytes(b"\xff\xfe\x00")
    with raised(FileNotFoundError, "list.txt", "not text"):
        ZeroShotDataset(config, SPLIT)


@pytest.mark.parametrize("cls", ["PascalVOC20Dataset", "PascalContextDataset59"])
def test_data_sets_that_assert_their_folders(tmp_path, cls):
    config = dict(
        type=cls,
        data_root=str(tmp_path),
        data_prefix=dict(img_path="JPEGImages", seg_map_path="SegmentationClass"),
        ann_file="train.txt",
    )
    split = "voc" if cls == "PascalVOC20Dataset" else "context"
    with raised(FileNotFoundError, f"{tmp_path}/JPEGImages", cls, "does not exist"):
        ZeroShotDataset(config, split)


def test_suffix_that_a_class_of_ones_own_sets(root, config_of):
    class PhotosDataset(BaseSegDataset):
        def __init__(self, **options):
            super().__init__(img_suffix=".jpg", **options)

    config = config_of(root)
    del config["img_suffix"]
    with raised(FileNotFoundError, f"{root}/images", "'.jpg'", "PhotosDataset"):
        ZeroShotDataset({**config, "type": PhotosDataset}, SPLIT)


def test_inside_wrappers(root, config_of):
    inner = dict(type="ConcatDataset", datasets=[config_of(root), config_of(root / "nowhere")])
    with raised(FileNotFoundError, "nowhere"):
        ZeroShotDataset(dict(type="RepeatDataset", times=2, dataset=inner), SPLIT)


def test_folder_of_an_object(root, config_of):
    (root / "list.txt").write_text("0\n")
    plain = DATASETS.build(config_of(root, ann_file="list.txt"))
    shutil.rmtree(root / "images")
    with raised(FileNotFoundError, f"{root}/images"):
        ZeroShotDataset(plain, SPLIT)


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


def damage(path, how: str) -> None:
    whole = path.read_bytes()
    damaged = {"truncated": whole[: len(whole) // 2], "empty": b"", "not an image": b"hello"}
    path.write_bytes(damaged[how])


@pytest.mark.parametrize("how", ["truncated", "empty", "not an image"])
@pytest.mark.parametrize(("folder", "what"), [("images", "image"), ("labels", "label file")])
@pytest.mark.parametrize("test_mode", [False, True])
def test_files_that_cannot_be_decoded(root, config_of, how, folder, what, test_mode):
    path = root / folder / "1.png"
    damage(path, how)
    dataset = ZeroShotDataset(config_of(root, test_mode=test_mode), SPLIT)
    dataset[0]
    with raised(ValueError, f"{what} {path} cannot be decoded", "Replace the file"):
        dataset[1]


def test_truncated_jpeg(root, config_of):
    path = root / "images" / "1.jpg"
    for i in range(3):
        image = np.random.default_rng(i).integers(0, 256, (64, 64, 3), dtype=np.uint8)
        Image.fromarray(image).save(root / "images" / f"{i}.jpg")
    damage(path, "truncated")
    dataset = ZeroShotDataset(config_of(root, img_suffix=".jpg"), SPLIT)
    with raised(ValueError, f"image {path} cannot be decoded"):
        dataset[1]


def test_error_reaches_the_loop_from_a_worker(root, config_of):
    damage(root / "images" / "1.png", "empty")
    dataset = ZeroShotDataset(config_of(root), SPLIT)
    batches = iter(DataLoader(dataset, sampler=[1], num_workers=1, collate_fn=list))
    with raised(ValueError, f"{root}/images/1.png"):
        next(batches)
    batches._shutdown_workers()  # type: ignore[attr-defined]  # the garbage collector would take five seconds for it


@pytest.mark.parametrize(("folder", "what"), [("images", "image"), ("labels", "label file")])
def test_file_of_the_list_is_missing(root, config_of, folder, what):
    (root / "list.txt").write_text("0\n1\n")
    (root / folder / "1.png").unlink()
    dataset = ZeroShotDataset(config_of(root, ann_file="list.txt"), SPLIT)
    with raised(FileNotFoundError, f"{what} {root}/{folder}/1.png does not exist", "`ann_file`"):
        dataset[1]
    assert issubclass(MissingFileError, SampleError)


def test_failure_in_another_transform_names_the_files(root, config_of):
    pipeline = [dict(type="LoadImageFromFile"), lambda results: 1 / 0]
    dataset = ZeroShotDataset(config_of(root), SPLIT, pipeline=pipeline)
    with raised(SampleError, f"{root}/images/0.png", f"{root}/labels/0.png", "ZeroDivisionError"):
        dataset[0]


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
    with raised(ValueError, f"{path} holds the values {listed}, but", "0..3 and 255"):
        dataset[1]


def test_zero_is_the_background_hint(write_data, config_of):
    root = write_data([np.arange(20).reshape(4, 5) % 5])
    with raised(ValueError, "0.png", "values 4,", "`reduce_zero_label`"):
        ZeroShotDataset(config_of(root), SPLIT)[0]
    ZeroShotDataset(config_of(root, reduce_zero_label=True), SPLIT)[0]


@pytest.mark.parametrize("value", [256, 300, 65535])
def test_wide_labels_do_not_wrap(root, config_of, value):
    path = root / "labels" / "0.png"
    label = np.zeros((4, 5), dtype=np.uint16)
    label[2, 2] = value
    Image.fromarray(label).save(path)
    with raised(ValueError, f"{path} holds the values {value}, but"):
        ZeroShotDataset(config_of(root), SPLIT)[0]


def test_wide_labels_with_small_values(root, config_of, label_of):
    label = (np.arange(20).reshape(4, 5) % 4).astype(np.uint16)
    Image.fromarray(label).save(root / "labels" / "0.png")
    dataset = ZeroShotDataset(config_of(root), SPLIT)
    np.testing.assert_array_equal(label_of(dataset[0]), np.where(label >= 2, 255, label))


def test_color_labels(root, config_of):
    path = root / "labels" / "0.png"
    Image.open(path).convert("RGB").save(path)
    with raised(ValueError, f"{path} holds an array of shape \\(4, 5, 3\\)", "single-channel"):
        ZeroShotDataset(config_of(root), SPLIT)[0]


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
@pytest.mark.parametrize("test_mode", [True, False])
def test_labels_of_another_size_than_the_image(root, config_of, test_mode, resized_first):
    for name, size in (("0", (5, 4)), ("1", (4, 5)), ("2", (10, 8))):  # width x height
        Image.new("L", size).save(root / "labels" / f"{name}.png")
    resize = [dict(type="Resize", scale=(10, 8), keep_ratio=True)] if resized_first else []
    pipeline = [
        dict(type="LoadImageFromFile"),
        *resize,
        dict(type="LoadAnnotations"),
        dict(type="PackSegInputs"),
    ]
    dataset = ZeroShotDataset(config_of(root, test_mode=test_mode), SPLIT, pipeline=pipeline)
    dataset[0]
    for name, stated in (("1", "5 x 4"), ("2", "8 x 10")):
        files = f"{root}/images/{name}.png", f"{root}/labels/{name}.png"
        with raised(ValueError, *files, "4 x 5", stated):
            dataset[int(name)]


@pytest.mark.parametrize(("folder", "what"), [("images", "image"), ("labels", "label file")])
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


def test_bad_label_found_while_dropping(root, config_of):
    Image.fromarray(np.full((4, 5), 9, dtype=np.uint8)).save(root / "labels" / "2.png")
    with raised(ValueError, f"{root}/labels/2.png", "values 9"):
        ZeroShotDataset(config_of(root), SPLIT, drop_unseen_images=True)


def test_no_loader_for_labels(root, config_of):
    pipeline = [dict(type="LoadImageFromFile")]
    with raised(ValueError, "no transform .* reads the label", "LoadAnnotations"):
        ZeroShotDataset(config_of(root), SPLIT, drop_unseen_images=True, pipeline=pipeline)


def test_without_a_single_labeled_pixel(write_data, config_of, label_of):
    dataset = ZeroShotDataset(config_of(write_data([np.full((4, 5), 255)])), SPLIT)
    assert torch.equal(dataset[0]["data_samples"].gt_sem_seg.data, torch.full((1, 4, 5), 255))


# Arguments ---------------------------------------------------------------------------------------


def test_other_classes_than_the_splits(root, config_of):
    with raised(ValueError, "split has 20 classes and the data 4", "metainfo"):
        ZeroShotDataset(config_of(root), "voc")
    renamed = config_of(root, metainfo=dict(classes=["sky", "street", "tree", "car"]))
    with raised(ValueError, "index 1: 'road' in the split, 'street' in the data"):
        ZeroShotDataset(renamed, SPLIT)


def test_data_without_class_names(root, config_of):
    plain = DATASETS.build(config_of(root, metainfo=None))
    with raised(ValueError, "BaseSegDataset has no class names", "metainfo=dict"):
        ZeroShotDataset(plain, SPLIT)
    with raised(ValueError, "BaseSegDataset has no class names", "metainfo=dict"):
        ZeroShotDataset(config_of(root, metainfo=None), dict(unseen=["car"]))


def test_a_config_without_class_names_takes_those_of_the_split(root, config_of):
    config = config_of(root, metainfo=None)
    twice = dict(type="ConcatDataset", datasets=[config, config])
    for dataset in (config, twice):
        assert list(ZeroShotDataset(dataset, SPLIT).metainfo["classes"]) == NAMES
    assert config["metainfo"] is None


def test_unknown_setting(root, config_of):
    with raised(ValueError, "'inductiv'", "inductive, transductive, supervised"):
        ZeroShotDataset(config_of(root), SPLIT, setting="inductiv")


def test_bad_split(root, config_of):
    with raised(ValueError, "out of range"):
        ZeroShotDataset(config_of(root), dict(classes=NAMES, unseen=[4]))


def test_too_many_classes(root, config_of):
    names = [f"class {i}" for i in range(255)]
    with raised(ValueError, "255 classes are too many"):
        ZeroShotDataset(config_of(root, metainfo=dict(classes=names)), dict(unseen=[1]))


def test_drop_in_testing(root, config_of):
    with raised(ValueError, "drop_unseen_images is for training"):
        ZeroShotDataset(config_of(root, test_mode=True), SPLIT, drop_unseen_images=True)


def test_mixed_test_modes(root, config_of):
    both = [config_of(root), config_of(root, test_mode=True)]
    with raised(ValueError, "some of the wrapped datasets have test_mode=True"):
        ZeroShotDataset(dict(type="ConcatDataset", datasets=both), SPLIT)


def test_no_data_set(root, config_of):
    with raised(ValueError, "not list"):
        ZeroShotDataset([1, 2], SPLIT)
    with raised(ValueError, "not ZeroShotDataset"):
        ZeroShotDataset(ZeroShotDataset(config_of(root), SPLIT), SPLIT)
