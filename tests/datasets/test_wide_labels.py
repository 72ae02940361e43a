"""Label files with more than 254 classes, with any ignored value and with a background."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from mmseg.datasets import BaseSegDataset
from PIL import Image

from mmseg_otseg.datasets import FolderDataset, ZeroShotDataset
from mmseg_otseg.datasets.label_rule import SampleError
from mmseg_otseg.structures import ClassSplit

LOAD = [dict(type="LoadImageFromFile"), dict(type="LoadAnnotations"), dict(type="PackSegInputs")]


def names(count: int) -> list[str]:
    return [f"class {index}" for index in range(count)]


def write(root: Path, values: list[int], suffix: str = "png", dtype: Any = np.uint16) -> Path:
    """One image and its label file for train and for val, a row with each of the values."""
    label = np.array([values] * 2, dtype)
    for subset in ("train", "val"):
        for kind in ("images", "labels"):
            (root / kind / subset).mkdir(parents=True)
        Image.new("RGB", label.shape[::-1]).save(root / "images" / subset / "0.jpg")
        Image.fromarray(label).save(root / "labels" / subset / f"0.{suffix}")
    return root


def row(dataset: Any) -> list[int]:
    return dataset[0]["data_samples"].gt_sem_seg.data[0, 0].tolist()


# Classes, arguments of the dataset, values in the file, and their labels; None is refused.
CASES = [
    (300, {}, [0, 253, 254, 255, 256, 299, 65535], [0, 253, 254, 255, 256, 299, 65535]),
    (300, {}, [0, 300], None),
    (300, dict(ignore_index=40000), [255, 299, 40000], [255, 299, 65535]),
    (300, dict(ignore_index=40000), [255, 65535], None),
    (255, {}, [253, 254, 255], [253, 254, 65535]),
    (254, {}, [253, 255], [253, 255]),
    (254, {}, [254], None),
    (20, dict(ignore_index=65535), [0, 19, 65535], [0, 19, 255]),
    (20, dict(ignore_index=65535), [255], None),
    (20, dict(ignore_index=200), [0, 19, 200], [0, 19, 255]),
    (300, dict(background=0), [0, 1, 255, 256, 300, 65535], [65535, 0, 254, 255, 299, 65535]),
    (300, dict(background=256), [255, 256, 257, 300], [255, 65535, 256, 299]),
    (20, dict(background=999), [0, 19, 255, 999], [0, 19, 255, 255]),
    (5, dict(background=0), [0, 1, 2, 3, 5, 255], [255, 0, 1, 2, 4, 255]),
    (5, dict(background=2), [0, 1, 2, 3, 5, 255], [0, 1, 255, 2, 4, 255]),
    (65534, {}, [254, 255, 65533, 65535], [254, 255, 65533, 65535]),
    (65534, {}, [65534], None),
    (65535, dict(background=0), [0, 1, 65535], [65535, 0, 65534]),
]


@pytest.mark.parametrize(("count", "options", "values", "labels"), CASES)
def test_every_value_is_the_class_it_says(
    tmp_path: Path, count: int, options: dict, values: list[int], labels: list[int] | None
) -> None:
    root, split = write(tmp_path, values), ClassSplit(tuple(names(count)))
    folder = dict(type="FolderDataset", data_root=str(root), subset="val", **options)
    metainfo, lists = dict(classes=names(count)), dict(serialize_data=False)
    alone = FolderDataset(
        str(root), "val", metainfo=metainfo, pipeline=[*LOAD], test_mode=True, **options, **lists
    )
    wrapped = ZeroShotDataset(dict(folder, test_mode=True), split, pipeline=LOAD)
    for dataset in (alone, wrapped):
        if labels is None:
            with pytest.raises(SampleError, match=rf"val/0\.png holds the values {values[-1]}, "):
                dataset[0]
        else:
            assert row(dataset) == labels
    assert wrapped.ignore_index == (255 if count < 255 else 65535)


@pytest.mark.parametrize(
    ("suffix", "dtype"), [("png", np.uint16), ("tif", np.uint16), ("tif", np.int32), ("tif", ">u2")]
)
def test_formats(tmp_path: Path, suffix: str, dtype: Any) -> None:
    root = write(tmp_path, [0, 255, 299, 65535], suffix, dtype)
    split = ClassSplit(tuple(names(300)))
    data = dict(type="BaseSegDataset", data_root=str(root), img_suffix=".jpg", test_mode=True)
    prefix = dict(img_path="images/val", seg_map_path="labels/val")
    dataset = dict(data, data_prefix=prefix, seg_map_suffix=f".{suffix}")
    assert row(ZeroShotDataset(dataset, split, pipeline=LOAD)) == [0, 255, 299, 65535]
    zero = dict(dataset, reduce_zero_label=True)
    assert row(ZeroShotDataset(zero, split, pipeline=LOAD)) == [65535, 254, 298, 65535]


def test_augmentation_neither_ignores_nor_pads_with_a_class(tmp_path: Path) -> None:
    """All of mmseg's and mmcv's transforms that a label passes; 255 is the only class here."""
    root = write(tmp_path, [255] * 40)
    pipeline: list[dict[str, Any]] = [
        *LOAD[:2],
        dict(type="RandomResize", scale=(80, 80), ratio_range=(1.0, 1.0), keep_ratio=False),
        dict(type="RandomCrop", crop_size=(60, 60), cat_max_ratio=0.75),
        dict(type="RandomFlip", prob=1.0),
        dict(type="RandomRotate", prob=1.0, degree=(30, 30)),
        dict(type="PhotoMetricDistortion"),
        dict(type="Pad", size=(70, 70)),
        LOAD[2],
    ]
    folder = dict(type="FolderDataset", data_root=str(root))
    dataset = ZeroShotDataset(folder, ClassSplit(tuple(names(300))), pipeline=pipeline)
    label = dataset[0]["data_samples"].gt_sem_seg.data[0]
    assert label.shape == (70, 70) and set(label.unique().tolist()) == {255, 65535}
    assert (label[60:] == 65535).all()
    crop = next(step for step in dataset.leaves[0].pipeline.transforms if hasattr(step, "crop"))
    assert crop.ignore_index == 65535


def test_some_of_a_datasets_own_classes(tmp_path: Path) -> None:
    class Many(BaseSegDataset):
        METAINFO = dict(classes=tuple(names(400)), palette=[[0, 0, 0]] * 400)

    root = write(tmp_path, [0, 1, 256, 257, 399])
    prefix = dict(img_path="images/val", seg_map_path="labels/val")
    kept = names(400)[1:399]  # the value 256 becomes 255, which mmseg takes for "left out"
    dataset = Many(
        data_root=str(root), data_prefix=prefix, metainfo=dict(classes=kept), test_mode=True
    )
    found = row(ZeroShotDataset(dataset, ClassSplit(tuple(kept)), pipeline=LOAD))
    assert found == [65535, 0, 255, 256, 65535]


@pytest.mark.parametrize("reduce_zero_label", [False, True])
@pytest.mark.parametrize("kept", [names(9), names(9)[::-1][2:7]])
def test_files_of_8_bits_are_read_as_mmseg_reads_them(
    tmp_path: Path, reduce_zero_label: bool, kept: list[str]
) -> None:
    class Nine(BaseSegDataset):
        METAINFO = dict(classes=tuple(names(9)), palette=[[0, 0, 0]] * 9)

    root = write(tmp_path, [*range(9 + reduce_zero_label), 255], dtype=np.uint8)
    prefix = dict(img_path="images/val", seg_map_path="labels/val")
    dataset = Nine(
        data_root=str(root),
        data_prefix=prefix,
        metainfo=dict(classes=kept),
        reduce_zero_label=reduce_zero_label,
        pipeline=LOAD,
        test_mode=True,
    )
    assert row(ZeroShotDataset(dataset, ClassSplit(tuple(kept)))) == row(dataset)
    # A dataset may also say it sample by sample.
    dataset.label_map = None
    assert row(ZeroShotDataset(dataset, ClassSplit(tuple(kept)))) == row(dataset)


# A background that counts ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("count", "mode", "test_mode", "values", "labels"),
    [
        (3, None, True, [0, 1, 2, 3, 255], [255, 0, 1, 2, 255]),
        (3, "threshold", True, [0, 1, 2, 3, 255], [3, 0, 1, 2, 255]),
        (3, "threshold", False, [0, 1, 2, 3, 255], [255, 0, 1, 2, 255]),
        (3, "names", True, [0, 1, 2, 3, 255], [3, 0, 1, 2, 255]),
        (3, "names", False, [0, 1, 2, 3, 255], [3, 0, 1, 2, 255]),
        (3, "threshold", True, [0, 4], None),  # 4 would become the label of the background
        (254, "threshold", True, [0, 1, 254, 255], [254, 0, 253, 65535]),
    ],
)
def test_background(
    tmp_path: Path,
    count: int,
    mode: str | None,
    test_mode: bool,
    values: list[int],
    labels: list[int] | None,
) -> None:
    root = write(tmp_path, values, dtype=np.uint8)
    classes = (*names(count), *(["background"] if mode == "names" else []))
    folder = dict(
        type="FolderDataset",
        data_root=str(root),
        serialize_data=False,
        background=0,
        test_mode=test_mode,
    )
    dataset = ZeroShotDataset(folder, ClassSplit(classes, (), mode), pipeline=LOAD)
    assert dataset.metainfo.get("background") == mode
    if labels is None:
        with pytest.raises(SampleError, match=r"the values 4, .* 0\.\.3 and 255"):
            dataset[0]
    else:
        assert row(dataset) == labels


def test_a_background_that_is_nowhere(tmp_path: Path) -> None:
    root = write(tmp_path, [0, 1, 2], dtype=np.uint8)
    folder = dict(type="FolderDataset", data_root=str(root), test_mode=True)
    for classes, mode in ((names(3), "threshold"), (names(4), "names")):
        with pytest.raises(ValueError, match=r"no value for it.*reduce_zero_label"):
            ZeroShotDataset(folder, ClassSplit(tuple(classes), (), mode))
    with pytest.raises(ValueError, match="background='foreground'"):
        ClassSplit(tuple(names(3)), (), "foreground")
