"""Mistakes on purpose in data, names and split: each is found, and the message says what to do."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from mmengine.config import Config
from mmseg.datasets import COCOStuffDataset
from PIL import Image

from mmseg_otseg.checks import DataReport, check_data
from mmseg_otseg.checks.labels import hidden_findings
from tests.helpers.folder_data import CLASSES, UNSEEN, change_labels, label_files, write_folders

Change = Callable[[Path], Any]


def report_of(
    root: Path,
    classes: Sequence[str] = CLASSES,
    unseen: Sequence[Any] = UNSEEN,
    background: int | None = None,
    setting: str = "inductive",
) -> DataReport:
    """Check the data in a folder."""
    load = [dict(type="LoadImageFromFile"), dict(type="LoadAnnotations")]
    augment = [
        dict(type="RandomCrop", crop_size=(32, 32), cat_max_ratio=0.75),
        dict(type="RandomFlip", prob=0.5),
    ]
    pack = [dict(type="PackSegInputs")]

    def loader(subset: str, steps: list) -> dict:
        options = dict(serialize_data=False, test_mode=subset == "val")
        folder = dict(type="FolderDataset", data_root=str(root), subset=subset, **options)
        folder["background"] = background
        wrapper = dict(type="ZeroShotDataset", split=split, setting=setting, dataset=folder)
        return dict(dataset=dict(**wrapper, pipeline=steps))

    split = dict(classes=classes, unseen=unseen)
    cfg = Config(
        dict(
            model=dict(split=split),
            train_dataloader=loader("train", [*load, *augment, *pack]),
            val_dataloader=loader("val", [*load, *pack]),
        )
    )
    return check_data(cfg, ask_clip=False)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return write_folders(tmp_path / "data")


def said(report: DataReport) -> str:
    return "\n".join(f"{level}: {text}" for level, text in report.findings)


def has(report: DataReport, level: str, *words: str) -> None:
    """One finding of this level has all the words."""
    texts = [text for found, text in report.findings if found == level]
    assert any(all(word in text for word in words) for text in texts), said(report)
    assert report.can_train == (not any(found == "error" for found, _ in report.findings))


def test_good_data_has_nothing_to_fix(root: Path) -> None:
    report = report_of(root)
    assert report.can_train and [level for level, _ in report.findings] == ["note"], said(report)
    tree = CLASSES.index("tree")
    hidden = sum(sample.pixels[tree] for sample in report.samples["train"])
    has(report, "note", f"{hidden:,} pixels of unseen classes", "none keeps its label")


# Label values ------------------------------------------------------------------------------------


def in_color(label: np.ndarray) -> np.ndarray:
    return np.stack([label * 40, 255 - label, label], axis=-1)


def smeared(label: np.ndarray) -> np.ndarray:
    """As after a resize that mixes values."""
    return np.array(Image.fromarray(label * 20).resize((640, 480)).resize((64, 48)))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (in_color, ("colors, not one class index", "single-channel PNG")),
        (lambda x: x + 1, ("the values 5,", "0 never occurs", "background=0")),
        (lambda x: np.where(x == 2, 0, x + 1), ("the values 5,", "If 0 is the background")),
        (lambda x: np.where(x == 4, 100, x), ("the values 100,", "set background=100")),
        (lambda x: x.astype(np.uint16) * 1000, ("the values 1000, 2000", "8-bit")),
        (smeared, ("gray image", "nearest neighbor")),
        (lambda x: x + 3, ("the values 5, 6, 7,", "The class list has 5 names")),
    ],
)
def test_label_values(root: Path, change: Callable, words: tuple[str, ...]) -> None:
    change_labels(root, lambda x: change(x) if change is smeared else cast(change(x)))
    has(report_of(root), "error", "train_0.png", *words)


def cast(label: np.ndarray) -> np.ndarray:
    return label if label.dtype == np.uint16 else label.astype(np.uint8)


def test_sixteen_bits_with_class_indices_are_fine(root: Path) -> None:
    change_labels(root, lambda x: x.astype(np.uint16))
    assert report_of(root).can_train


def test_background_that_is_a_class(root: Path) -> None:
    has(report_of(root, background=0), "warning", "car, never occurs", "background=None")


def test_background_that_stands_in_the_list(root: Path) -> None:
    names = ("background", "building", "road", "tree", "car")
    has(report_of(root, names), "warning", "'background'", "set `background`", "--none-below")


def test_mask_of_0_and_255(root: Path) -> None:
    change_labels(root, lambda x: np.where(x == 4, 255, 0).astype(np.uint8))
    report = report_of(root, ("sky", "car"), ["car"])
    has(report, "warning", "mask of 0 and 255", "write 1", "background=0")


def test_everything_ignored(root: Path) -> None:
    change_labels(root, lambda x: np.full_like(x, 255), "train")
    has(report_of(root), "error", "train: no pixel has a seen class")


def test_one_image_ignored(root: Path) -> None:
    Image.new("L", (64, 48), 255).save(label_files(root, "train")[1])
    has(report_of(root), "warning", "train_1.png", "every pixel is ignored")


# Names and split ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("classes", "words"),
    [
        (("void", *CLASSES), ("warning", "car, is the only one that never occurs", "extra")),
        (CLASSES[1:], ("error", "the values 4,", "`classes`")),
        ((*CLASSES, "bus"), ("warning", "train: no pixel is labeled bus")),
        (
            ("Sky", "BUILDING", "road", "tree", "car"),
            ("warning", "'Sky', 'BUILDING'", "lower case"),
        ),
        (("sky", "cars", "road", "tree", "car"), ("warning", "cars, car", "nearly the same")),
        (("sky", "cars", "road", "tree", "bus"), ("note", "'cars'", "singular")),
        (("sky", "TallBuilding", "dirt_road", "tree", "car"), ("warning", "'dirt_road'", "spaces")),
        (("sky", "class 2", "3", "tree", "car"), ("warning", "'class 2', '3'", "English word")),
        (("Himmel", "gebäude", "road", "tree", "car"), ("warning", "'gebäude'", "English")),
        (("sky ", "building", "road", "tree", "car"), ("warning", "'sky '", "spaces")),
        (("sky", "sky", "road", "tree", "car"), ("error", "more than once")),
    ],
)
def test_names(root: Path, classes: Sequence[str], words: tuple[str, ...]) -> None:
    has(report_of(root, classes), *words)


@pytest.mark.parametrize(
    ("unseen", "words"),
    [
        (["trees"], ("error", "'trees'", "sky, building, road, tree, car")),
        (list(CLASSES), ("error", "at least one class must be seen")),
        ([9], ("error", "index 9", "out of range")),
        ([], ("note", "no class is unseen")),
    ],
)
def test_splits(root: Path, unseen: list, words: tuple[str, ...]) -> None:
    has(report_of(root, unseen=unseen), *words)


def test_unseen_class_that_val_lacks(root: Path) -> None:
    change_labels(root, lambda x: np.where(x == 3, 255, x).astype(np.uint8), "val")
    has(report_of(root), "warning", "val: no pixel is labeled tree", "otseg_512_seen_labels.py")


def test_seen_class_that_train_lacks(root: Path) -> None:
    change_labels(root, lambda x: np.where(x == 4, 255, x).astype(np.uint8), "train")
    has(report_of(root), "warning", "train: no pixel is labeled car", "Add labels")


def test_unseen_labels_that_survive(root: Path) -> None:
    data = report_of(root)
    assert data.can_train
    for sample in data.samples["train"]:
        sample.trained = sample.pixels
    (finding,) = hidden_findings(data.samples["train"], data.split)
    assert finding.level == "error" and "keep their label" in finding.text


# Files and folders -------------------------------------------------------------------------------


def swap(root: Path) -> None:
    for path in label_files(root):
        image = root / "images" / path.parent.name / f"{path.stem}.jpg"
        photo, label = Image.open(image).copy(), Image.open(path).copy()
        image.unlink()
        label.save(image.with_suffix(".png"))
        photo.save(path)


def val_is_train(root: Path) -> None:
    for kind in ("images", "labels"):
        shutil.rmtree(root / kind / "val")
        shutil.copytree(root / kind / "train", root / kind / "val")


def exchange_parts(root: Path) -> None:
    for kind in ("images", "labels"):
        (root / kind / "train").rename(root / kind / "x")
        (root / kind / "val").rename(root / kind / "train")
        (root / kind / "x").rename(root / kind / "val")


def another_size(root: Path) -> None:
    path = label_files(root, "train")[0]
    Image.open(path).resize((32, 24), Image.Resampling.NEAREST).save(path)


def turned(root: Path) -> None:
    """Photographs as a camera held upright saves them."""
    exif = Image.Exif()
    exif[0x0112] = 6
    for path in root.glob("images/*/*.jpg"):
        Image.open(path).save(path, exif=exif)


def in_subfolder(root: Path) -> None:
    for path in label_files(root, "train"):
        (path.parent / "masks").mkdir(exist_ok=True)
        path.rename(path.parent / "masks" / path.name)


def cut(folder: str, name: str) -> Change:
    def change(root: Path) -> None:
        path = root / folder / "train" / name
        path.write_bytes(path.read_bytes()[:60])

    return change


def as_jpeg(root: Path) -> None:
    for path in label_files(root):
        Image.open(path).save(path, format="JPEG", quality=30)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (swap, ("error", "colors", "`images` and `labels` are swapped")),
        (val_is_train, ("error", "4 of 4 val images are in train too")),
        (exchange_parts, ("warning", "val has more images (4) than train (2)")),
        (cut("images", "train_1.jpg"), ("error", "train_1.jpg cannot be decoded")),
        (cut("labels", "train_1.png"), ("error", "train_1.png cannot be decoded")),
        (turned, ("error", "train_0.png", "64 x 48", "EXIF")),
        (in_subfolder, ("error", "train_0.jpg", "masks/train_0.png", "sub-folders")),
        (another_size, ("error", "train_0.png", "24 x 32", "same size")),
        (as_jpeg, ("error", "4 label files (train_0.png", "JPEG", "as PNG")),
        (
            lambda root: label_files(root, "train")[0].unlink(),
            ("error", "1 of 4 images", "label file"),
        ),
        (
            lambda root: (root / "images/train/train_0.jpg").unlink(),
            ("warning", "1 label files without an image", "train_0.png"),
        ),
        (
            lambda root: shutil.rmtree(root / "labels" / "val"),
            ("error", "labels/val", "does not exist"),
        ),
        (lambda root: shutil.rmtree(root), ("error", "images/train", "`data_root`")),
    ],
)
def test_files(root: Path, change: Change, words: tuple[str, ...]) -> None:
    change(root)
    has(report_of(root), *words)


def test_same_image_twice(root: Path) -> None:
    for kind, suffix in (("images", "jpg"), ("labels", "png")):
        folder = root / kind / "train"
        shutil.copy(folder / f"train_0.{suffix}", folder / f"copy.{suffix}")
    has(report_of(root), "warning", "train: number of duplicate images: 1")


def test_no_finding_follows_from_another(root: Path) -> None:
    """Samples that cannot be used are not counted as samples without a class."""
    turned(root)
    report = report_of(root)
    assert [level for level, _ in report.findings] == ["error", "error"], said(report)
    assert all("EXIF" in text for _, text in report.findings)


def test_raw_labels_of_coco_stuff(root: Path) -> None:
    change_labels(root, lambda x: np.where(x == 4, 181, x).astype(np.uint8))
    names = COCOStuffDataset.METAINFO["classes"]
    has(report_of(root, names, ["cow"]), "error", "the values 181", "coco_stuff164k.py")
