"""Conversion of the data sets whose usual preparation is a script of somebody else's."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
from mmseg_otseg_cli import convert_data as module
from mmseg_otseg_cli.ade20k_ids import ADE20K_IDS
from mmseg_otseg_cli.convert_data import convert_data
from mmseg_otseg_cli.errors import CommandError
from PIL import Image
from scipy.io import savemat

from mmseg_otseg.imaging import class_list


def read(file: Path) -> np.ndarray:
    with Image.open(file) as image:
        return np.asarray(image)


def save(values: np.ndarray, file: Path) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(values).save(file)
    return file


def coco(root: Path) -> tuple[Path, np.ndarray]:
    """Two label files as COCO-Stuff publishes them, and what becomes of the second."""
    folder = root / "annotations/val2017"
    save(np.zeros((2, 2), np.uint8), folder / "000000000001.png")
    save(np.full((2, 2), 3, np.uint8), folder / "000000000001_labelTrainIds.png")
    # person, street sign's neighbors, toothbrush, first and last kind of stuff, unlabeled
    save(np.uint8([[0, 10, 12], [89, 91, 181], [255, 255, 9]]), folder / "000000000002.png")
    return folder / "000000000002_instanceTrainIds.png", np.uint8(
        [[1, 11, 12], [80, 0, 0], [0, 0, 10]]
    )


def context(root: Path) -> tuple[Path, np.ndarray]:
    (root / "ImageSets/SegmentationContext").mkdir(parents=True)
    (root / "ImageSets/SegmentationContext/val.txt").write_text("2008_000001\n2008_000002\n")
    (root / "trainval").mkdir()
    savemat(root / "trainval/2008_000001.mat", {"LabelMap": np.ones((2, 2), np.uint16)})
    labels = np.uint16([[1, 255, 256], [257, 459, 0]])
    savemat(root / "trainval/2008_000002.mat", {"LabelMap": labels})
    file = root / "annotations_detectron2/pc459_val/2008_000002.tif"
    return file, np.uint16([[0, 254, 255], [256, 458, 65535]])


def ade_colors(numbers: np.ndarray) -> np.ndarray:
    """Colors (H, W, 3) for objects' numbers (H, W); blue tells instances apart."""
    red = numbers // 256 * 10 + 3  # the last digit does not count
    return np.stack([red, numbers % 256, np.full_like(numbers, 7)], 2).astype(np.uint8)


def ade(root: Path) -> tuple[Path, np.ndarray]:
    folder = root / "images/ADE/validation/urban/street"
    classes = np.array([[0, 254, 255], [256, 846, 847]])
    numbers = np.append(ADE20K_IDS, 1)[classes]  # the object 1 is no class
    assert 1 not in ADE20K_IDS
    for name in ("ADE_val_00000001", "ADE_val_00000002"):
        save(np.full((2, 3, 3), 128, np.uint8), folder / f"{name}.jpg")
        save(ade_colors(numbers), folder / f"{name}_seg.png")
    file = root / "annotations_detectron2/validation/ADE_val_00000002.tif"
    return file, np.where(classes == 847, 65535, classes).astype(np.uint16)


SOURCES = {"coco_object": coco, "context459": context, "ade20k_847": ade}


@pytest.mark.filterwarnings("ignore:Corrupt EXIF")
@pytest.mark.parametrize("name", SOURCES)
def test_every_value_gets_the_right_class_also_after_an_interruption(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file, expected = SOURCES[name](tmp_path)
    samples, convert, download = module.CONVERTERS[name]
    interrupted: list[module.Sample] = []

    def stops(sample: module.Sample) -> np.ndarray:
        if interrupted:
            raise KeyboardInterrupt
        interrupted.append(sample)
        return convert(sample)

    monkeypatch.setitem(module.CONVERTERS, name, (samples, stops, download))
    with pytest.raises(KeyboardInterrupt):
        convert_data(name, tmp_path)
    assert not file.exists()
    first = interrupted[0].target
    time = first.stat().st_mtime_ns
    monkeypatch.undo()
    assert convert_data(name, tmp_path) == (2, 1)
    assert first.stat().st_mtime_ns == time and read(file).dtype == expected.dtype
    np.testing.assert_array_equal(read(file), expected)
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])  # a copy that broke off
    assert convert_data(name, tmp_path) == (2, 1)
    np.testing.assert_array_equal(read(file), expected)
    assert convert_data(name, tmp_path) == (2, 0)


@pytest.mark.parametrize("name", SOURCES)
def test_it_says_what_to_download(name: str, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=str(tmp_path)):
        convert_data(name, tmp_path)


def test_a_missing_label_map_is_named_before_anything_is_written(tmp_path: Path) -> None:
    context(tmp_path)
    (tmp_path / "trainval/2008_000001.mat").unlink()
    with pytest.raises(FileNotFoundError, match=r"2008_000001\.mat"):
        convert_data("context459", tmp_path)
    assert not (tmp_path / "annotations_detectron2").exists()


def test_other_files_are_not_taken_for_labels(tmp_path: Path) -> None:
    save(np.uint8([[11]]), tmp_path / "coco/annotations/val2017/1.png")
    with pytest.raises(CommandError, match=r"1\.png"):
        convert_data("coco_object", tmp_path / "coco")
    context(tmp_path)
    savemat(tmp_path / "trainval/2008_000001.mat", {"LabelMap": np.uint16([[460]])})
    with pytest.raises(CommandError, match=r"2008_000001\.mat"):
        convert_data("context459", tmp_path)


def test_large_images_of_ade20k_full_shrink_with_their_labels(tmp_path: Path) -> None:
    folder = tmp_path / "images/ADE/validation/nature"
    generator = np.random.default_rng(0)
    classes = generator.integers(0, 847, (600, 900))
    photo = cv2.resize(generator.integers(0, 256, (6, 9, 3)).astype(np.uint8), (900, 600))
    save(photo, folder / "ADE_val_00000003.jpg")
    save(ade_colors(np.array(ADE20K_IDS)[classes]), folder / "ADE_val_00000003_seg.png")
    convert_data("ade20k_847", tmp_path)
    labels = read(tmp_path / "annotations_detectron2/validation/ADE_val_00000003.tif")
    # OpenCV's nearest neighbor takes the pixel at or before the exact place.
    rows, columns = np.arange(512) * 600 // 512, np.arange(768) * 900 // 768
    np.testing.assert_array_equal(labels, classes[np.ix_(rows, columns)])
    image = read(tmp_path / "images_detectron2/validation/ADE_val_00000003.jpg")
    smaller = cv2.resize(photo, (768, 512))
    assert image.shape == smaller.shape
    assert np.abs(image.astype(int) - smaller).mean() < 4


#: Classes that lost a name by which the data set sorts them.
RENAMED = [
    *("basketball hoop", "control board", "flowerpot", "grille", "handbag", "newspaper"),
    *("silver screen", "terrace", "traveling bag", "tube", "wharf"),
]


def test_the_objects_of_ade20k_full_are_in_alphabetical_order() -> None:
    """The data set numbers its objects by name, but for some that were added later."""
    classes = class_list("catseg/ade20k_847")
    assert len(classes) == len(ADE20K_IDS) == len(set(ADE20K_IDS))
    names = [name for number, name in sorted(zip(ADE20K_IDS, classes)) if number < 3100]
    names = [name.replace(" |", ",") for name in names if name.split(" | ")[0] not in RENAMED]
    assert names == sorted(names)
