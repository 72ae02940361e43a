"""Small data in the layouts of ``configs/open_vocabulary``, with values easily mistaken."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

VOC, CONTEXT = "data/VOCdevkit/VOC2012", "data/VOCdevkit/VOC2010"
COCO, CITY = "data/coco_stuff164k", "data/cityscapes"
ADE, ADE_FULL = "data/ade/ADEChallengeData2016", "data/ade/ADE20K_2021_17_01"
VOC_LIST, CONTEXT_LIST = "ImageSets/Segmentation/val.txt", "ImageSets/SegmentationContext/val.txt"


class Layout(NamedTuple):
    """Where the files of a data set are, and what is in its label files.

    Attributes:
        image, label: Paths, with ``{}`` for the name of the image.
        names: Of the images.
        classes: Number of classes K.
        listed: File with the names, if there is one.
        background: Whether 0 is none of the classes, which are 1 to K.
        counts: Whether the background is one of those that are tested.
        ignored: Value of pixels that are left out.
    """

    image: str
    label: str
    names: tuple[str, str]
    classes: int
    listed: str | None = None
    background: bool = False
    counts: bool = False
    ignored: int = 255


def _voc(counts: bool) -> Layout:
    names = ("2007_000001", "2007_000002")
    folders = (f"{VOC}/JPEGImages/{{}}.jpg", f"{VOC}/SegmentationClass/{{}}.png")
    return Layout(*folders, names, 20, f"{VOC}/{VOC_LIST}", True, counts)


def _context(labels: str, classes: int, counts: bool) -> Layout:
    names = ("2008_000001", "2008_000002")
    folders = (f"{CONTEXT}/JPEGImages/{{}}.jpg", f"{CONTEXT}/{labels}")
    few = classes < 255
    ignored = 255 if few else 65535
    return Layout(*folders, names, classes, f"{CONTEXT}/{CONTEXT_LIST}", few, counts, ignored)


def _coco(labels: str, classes: int, background: bool) -> Layout:
    names = ("000000000001", "000000000002")
    folders = (f"{COCO}/images/val2017/{{}}.jpg", f"{COCO}/annotations/val2017/{labels}")
    return Layout(*folders, names, classes, None, background, background)


LAYOUTS = {
    "voc20": _voc(counts=False),
    "voc20b": _voc(counts=True),
    "voc21": _voc(counts=True),
    "context59": _context("SegmentationClassContext/{}.png", 59, counts=False),
    "context60": _context("SegmentationClassContext/{}.png", 59, counts=True),
    "context459": _context("annotations_detectron2/pc459_val/{}.tif", 459, counts=False),
    "coco_object": _coco("{}_instanceTrainIds.png", 80, background=True),
    "cocostuff": _coco("{}_labelTrainIds.png", 171, background=False),
    "ade20k_150": Layout(
        f"{ADE}/images/validation/{{}}.jpg",
        f"{ADE}/annotations/validation/{{}}.png",
        ("ADE_val_00000001", "ADE_val_00000002"),
        150,
        background=True,
    ),
    "ade20k_847": Layout(
        f"{ADE_FULL}/images_detectron2/validation/{{}}.jpg",
        f"{ADE_FULL}/annotations_detectron2/validation/{{}}.tif",
        ("ADE_val_00000001", "ADE_val_00000002"),
        847,
        ignored=65535,
    ),
    "cityscapes": Layout(
        f"{CITY}/leftImg8bit/val/{{}}_leftImg8bit.png",
        f"{CITY}/gtFine/val/{{}}_gtFine_labelTrainIds.png",
        ("bonn/bonn_000000_000019", "ulm/ulm_000000_000019"),
        19,
    ),
}


def values_of(layout: Layout, generator: np.random.Generator) -> np.ndarray:
    """A label map (48, 64) in blocks: the first and last classes, 254 to 256, ignored, gaps."""
    first = int(layout.background)
    last = layout.classes - 1 + first
    known = [0, first, last, layout.ignored, *(v for v in (253, 254, 255, 256) if v <= last)]
    others = generator.choice(last + 1, 12 - len(known), replace=False)
    blocks = generator.permutation([*known, *others]).reshape(3, 4)
    kind = np.uint8 if layout.ignored == 255 else np.uint16
    return blocks.astype(kind).repeat(16, 0).repeat(16, 1)


def write_layout(name: str, folder: Path) -> list[tuple[Path, np.ndarray]]:
    """Write two images of a data set and their labels below ``folder``.

    Returns:
        The label files and what they hold, (48, 64).
    """
    layout, generator = LAYOUTS[name], np.random.default_rng(sorted(LAYOUTS).index(name))
    written = []
    for image_name in layout.names:
        files = [folder / path.format(image_name) for path in (layout.image, layout.label)]
        for file in files:
            file.parent.mkdir(parents=True, exist_ok=True)
        image = generator.integers(0, 256, (3, 4, 3)).astype(np.uint8)
        Image.fromarray(image.repeat(16, 0).repeat(16, 1)).save(files[0])
        values = values_of(layout, generator)
        Image.fromarray(values).save(files[1])
        written.append((files[1], values))
    if layout.listed is not None:
        (folder / layout.listed).parent.mkdir(parents=True, exist_ok=True)
        (folder / layout.listed).write_text("\n".join(layout.names) + "\n")
    return written


def mean_iou(name: str, predicted: np.ndarray, values: np.ndarray) -> float:
    """The mean IoU in percent, counted value by value.

    Args:
        name: Of the data set.
        predicted: Predictions in the values of the label files, any shape.
        values: What the label files hold.
    """
    layout = LAYOUTS[name]
    first = int(layout.background and not layout.counts)
    last = layout.classes - 1 + layout.background
    tested = (values >= first) & (values <= last)  # the ignored value is larger than all others
    shares = []
    for value in range(first, last + 1):
        found, there = predicted[tested] == value, values[tested] == value
        if (found | there).any():
            shares.append((found & there).sum() / (found | there).sum())
    return 100 * float(np.mean(shares))
