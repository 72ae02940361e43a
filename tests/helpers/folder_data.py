"""Photographs of streets and their label files in two folders, drawn in a moment."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from PIL import Image

CLASSES = ("sky", "building", "road", "tree", "car")
UNSEEN = ("tree",)
# What is where: top, bottom, left and right, in parts of the image; later ones stand in front.
STREET = {
    "sky": (0.0, 0.5, 0.0, 1.0),
    "building": (0.25, 0.5, 0.0, 0.35),
    "tree": (0.2, 0.5, 0.3, 0.65),
    "fence": (0.4, 0.5, 0.65, 0.9),
    "road": (0.5, 1.0, 0.0, 1.0),
    "pavement": (0.5, 1.0, 0.8, 1.0),
    "car": (0.6, 0.8, 0.1, 0.35),
    "pole": (0.1, 0.6, 0.7, 0.75),
    "sign symbol": (0.1, 0.2, 0.7, 0.85),
    "pedestrian": (0.5, 0.8, 0.85, 0.92),
    "bicyclist": (0.55, 0.85, 0.5, 0.6),
}


def street(
    rng: np.random.Generator, classes: Sequence[str], size: tuple[int, int]
) -> tuple[np.ndarray, np.ndarray]:
    """An image (H, W, 3) and its label map (H, W)."""
    height, width = size
    label = np.full(size, 255, np.uint8)
    image = np.full((*size, 3), 128)
    shift = rng.uniform(-0.05, 0.05)
    for name, (top, bottom, left, right) in STREET.items():
        if name in classes:
            rows = slice(int(top * height), int(bottom * height))
            ends = [max(int((end + shift * (0 < end < 1)) * width), 0) for end in (left, right)]
            label[rows, slice(*ends)] = classes.index(name)
            color = np.random.default_rng(len(name)).integers(40, 215, 3)
            image[rows, slice(*ends)] = color + rng.integers(-25, 25, 3)
    image = image + rng.integers(-15, 15, image.shape)
    return image.clip(0, 255).astype(np.uint8), label


def write_folders(
    root: Path,
    train: int = 4,
    val: int = 2,
    classes: Sequence[str] = CLASSES,
    size: tuple[int, int] = (48, 64),
) -> Path:
    """Write ``images/{train,val}/*.jpg`` and ``labels/{train,val}/*.png``.

    Args:
        root: The data folder to make.
        train: Images in ``train``.
        val: Images in ``val``.
        classes: Names, in the order of the label values.
        size: Height and width.
    """
    rng = np.random.default_rng(0)
    for subset, number in (("train", train), ("val", val)):
        for kind in ("images", "labels"):
            (root / kind / subset).mkdir(parents=True)
        for index in range(number):
            image, label = street(rng, classes, size)
            Image.fromarray(image).save(root / "images" / subset / f"{subset}_{index}.jpg")
            Image.fromarray(label).save(root / "labels" / subset / f"{subset}_{index}.png")
    return root


def label_files(root: Path, subset: str = "*") -> list[Path]:
    """The label files of a data folder."""
    return sorted(root.glob(f"labels/{subset}/*.png"))


def change_labels(
    root: Path, change: Callable[[np.ndarray], np.ndarray], subset: str = "*"
) -> None:
    """Replace every label map (H, W) by what ``change`` makes of it."""
    for path in label_files(root, subset):
        Image.fromarray(change(np.array(Image.open(path)))).save(path)
