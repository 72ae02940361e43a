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
    split: dict[str, Any] | None = None,
) -> DataReport:
    """Check the data in a folder."""
    load = [dict(type="LoadImageFromFile"), dict(type="LoadAnnotations")]
    augment = [dict(type="RandomCrop", crop_size=(32, 32), cat_max_ratio=0.75)]
    pack = [dict(type="PackSegInputs")]

    def loader(subset: str, steps: list) -> dict:
        options = dict(serialize_data=False, test_mode=subset == "val")
        folder = dict(type="FolderDataset", data_root=str(root), subset=subset, **options)
        folder["background"] = background
        wrapper = dict(type="ZeroShotDataset", split=split, setting=setting, dataset=folder)
        return dict(dataset=dict(**wrapper, pipeline=steps))

    split = split or dict(classes=classes, unseen=unseen)
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


# The label files, the images, the folders ---------------------------------------------------------


def labels(change: Callable[[np.ndarray], np.ndarray], subset: str = "*") -> Change:
    """Change every label map (H, W), uint8."""
    return lambda root: change_labels(root, change, subset)


def shifted(by: Callable[[np.ndarray], np.ndarray]) -> Change:
    return labels(lambda x: by(x).astype(np.uint8))


def without(value: int, subset: str) -> Change:
    return labels(lambda x: np.where(x == value, 255, x).astype(np.uint8), subset)


def in_color(label: np.ndarray) -> np.ndarray:
    return np.stack([label * 40, 255 - label, label], axis=-1)


def smeared(label: np.ndarray) -> np.ndarray:
    """As after a resize that mixes values."""
    return np.array(Image.fromarray(label * 20).resize((640, 480)).resize((64, 48)))


def one_ignored(root: Path) -> None:
    Image.new("L", (64, 48), 255).save(label_files(root, "train")[1])


def swapped(root: Path) -> None:
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


def parts_exchanged(root: Path) -> None:
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


def other_names(root: Path) -> None:
    for path in label_files(root, "train"):
        path.rename(path.with_name(f"label_of_{path.name}"))


def one_name_twice(root: Path) -> None:
    Image.new("RGB", (4, 4)).save(root / "images" / "train" / "train_0.png")


def as_jpeg(root: Path) -> None:
    for path in label_files(root):
        Image.open(path).save(path, format="JPEG", quality=30)


def same_twice(root: Path) -> None:
    for kind, suffix in (("images", "jpg"), ("labels", "png")):
        folder = root / kind / "train"
        shutil.copy(folder / f"train_0.{suffix}", folder / f"copy.{suffix}")


def cut(name: str) -> Change:
    return lambda root: (root / name).write_bytes((root / name).read_bytes()[:60])


def removed(name: str) -> Change:
    def change(root: Path) -> None:
        path = root / name
        shutil.rmtree(path) if path.is_dir() else path.unlink()

    return change


# What is said of a mistake (a level and words of one finding), and the mistake in the data ...
IN_DATA: dict[str, Change] = {
    "error: train_0.png; colors, not one class index; single-channel": labels(in_color),
    "error: the values 5,; 0 never occurs; background=0": shifted(lambda x: x + 1),
    "error: the values 5,; If 0 is the background": shifted(lambda x: np.where(x == 2, 0, x + 1)),
    "error: the values 100,; set background=100": shifted(lambda x: np.where(x == 4, 100, x)),
    "error: the values 1000, 2000; class indices": labels(lambda x: x.astype(np.uint16) * 1000),
    "error: train_0.png; gray image; nearest neighbor": labels(smeared),
    "error: the values 5, 6, 7,; The class list has 5 names": shifted(lambda x: x + 3),
    "error: train: no pixel has a seen class": labels(lambda x: x | 255, "train"),
    "warning: train_1.png; every pixel is ignored": one_ignored,
    "warning: val: no pixel is labeled tree; otseg_512_seen_labels.py": without(3, "val"),
    "warning: train: no pixel is labeled car; Add labels": without(4, "train"),
    "error: colors; `images` and `labels` are swapped": swapped,
    "error: 4 of 4 val images are in train too": val_is_train,
    "warning: val has more images (4) than train (2)": parts_exchanged,
    "error: train_1.jpg cannot be decoded": cut("images/train/train_1.jpg"),
    "error: train_1.png cannot be decoded": cut("labels/train/train_1.png"),
    "error: train_0.png; 64 x 48; EXIF": turned,
    "error: train_0.jpg; masks/train_0.png; sub-folders": in_subfolder,
    "error: train_0.jpg; label_of_train_0.png": other_names,
    "error: train_0.jpg ; train_0.png": one_name_twice,
    "error: train_0.png; 24 x 32; same size": another_size,
    "error: 4 label files (train_0.png; JPEG; as PNG": as_jpeg,
    "error: 1 of 4 images; label file": removed("labels/train/train_0.png"),
    "warning: 1 label files without an image; train_0.png": removed("images/train/train_0.jpg"),
    "error: labels/val; does not exist": removed("labels/val"),
    "error: images/train; `data_root`": removed("."),
    "warning: train: number of duplicate images: 1": same_twice,
}
ROAD = ("road", "tree", "car")
# ... or in the config.
IN_CONFIG: dict[str, dict[str, Any]] = {
    "warning: car, is the only one that never occurs; extra": dict(classes=("void", *CLASSES)),
    "error: the values 4,; `classes`": dict(classes=CLASSES[1:]),
    "warning: train: no pixel is labeled bus": dict(classes=(*CLASSES, "bus")),
    "warning: 'Sky', 'BUILDING'; lower case": dict(classes=("Sky", "BUILDING", *ROAD)),
    "warning: cars, car; nearly the same": dict(classes=("sky", "cars", *ROAD)),
    "note: 'cars'; singular": dict(classes=("sky", "cars", "road", "tree", "bus")),
    "warning: 'dirt_road'; spaces": dict(classes=("sky", "hut", "dirt_road", "tree", "car")),
    "warning: 'class 2', '3'; English": dict(classes=("sky", "class 2", "3", "tree", "car")),
    "warning: 'gebäude'; English": dict(classes=("Himmel", "gebäude", *ROAD)),
    "warning: 'blue  sky'; spaces": dict(classes=("blue  sky", "building", *ROAD)),
    "error: more than once": dict(classes=("sky", "sky", *ROAD)),
    "warning: 'background'; set `background`; --none-below": dict(
        classes=("background", "building", *ROAD)
    ),
    "error: 'trees'; sky, building, road, tree, car": dict(unseen=["trees"]),
    "error: at least one class must be seen": dict(unseen=list(CLASSES)),
    "error: index 9; out of range": dict(unseen=[9]),
    "note: no class is unseen": dict(unseen=[]),
    "warning: car, never occurs; background=None": dict(background=0),
}
COCO = COCOStuffDataset.METAINFO["classes"]
# In both.
IN_BOTH: dict[str, tuple[Change, dict[str, Any]]] = {
    "warning: mask of 0 and 255; write 1; background=0": (
        shifted(lambda x: np.where(x == 4, 255, 0)),
        dict(classes=("sky", "car"), unseen=["car"]),
    ),
    "error: the values 181; coco_stuff164k.py": (
        shifted(lambda x: np.where(x == 4, 181, x)),
        dict(classes=COCO, unseen=["cow"]),
    ),
}
MISTAKES = {
    **{words: (change, {}) for words, change in IN_DATA.items()},
    **{words: (lambda root: None, options) for words, options in IN_CONFIG.items()},
    **IN_BOTH,
}


@pytest.mark.parametrize("said", MISTAKES)
def test_mistakes(said: str, root: Path) -> None:
    change, options = MISTAKES[said]
    change(root)
    level, words = said.split(": ", 1)
    has(report_of(root, **options), level, *words.split("; "))


def test_no_finding_follows_from_another(root: Path) -> None:
    """Samples that cannot be used are not counted as samples without a class."""
    turned(root)
    report = report_of(root)
    assert [level for level, _ in report.findings] == ["error", "error"], said(report)
    assert all("EXIF" in text for _, text in report.findings)


def test_unseen_labels_that_survive(root: Path) -> None:
    data = report_of(root)
    for sample in data.samples["train"]:
        sample.trained = sample.pixels
    (finding,) = hidden_findings(data.samples["train"], data.split)
    assert finding.level == "error" and "keep their label" in finding.text


@pytest.mark.parametrize("mode", ["threshold", "names"])
def test_a_background_that_counts_is_no_mistake(root: Path, mode: str) -> None:
    change_labels(root, lambda x: np.where(x == 4, 0, x + 1).astype(np.uint8))
    classes = dict(threshold=CLASSES[:4], names=(*CLASSES[:4], "background | car"))[mode]
    split = dict(classes=classes, unseen=UNSEEN, background=mode)
    report = report_of(root, background=0, split=split)
    assert report.can_train and not any("background" in text for _, text in report.findings)
    label = np.asarray(Image.open(label_files(root, "val")[0]))
    assert report.samples["val"][0].pixels[4] == (label == 0).sum()
    assert report.draw_samples(root / "sheet.png")
