"""Images and label files in two folders, like photographs of streets, and some wrong ones."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

CLASSES = ("sky", "building", "road", "tree", "car")
UNSEEN = ("tree",)


def street(rng: np.random.Generator, size: tuple[int, int] = (48, 64)) -> np.ndarray:
    """A label map (H, W) with every class: sky, house and tree above a road with a car."""
    height, width = size
    label = np.zeros(size, np.uint8)
    middle, left = height // 2, int(rng.integers(4, width // 3))
    label[middle // 2 : middle, :left] = 1
    label[middle // 3 : middle, left : left + width // 3] = 3
    label[middle:] = 2
    label[middle + 4 : middle + 12, left : left + 16] = 4
    return label


def photograph(rng: np.random.Generator, label: np.ndarray) -> np.ndarray:
    """An image (H, W, 3) that goes with a label map: a color for each class, and noise."""
    colors = np.array([[120, 170, 240], [150, 90, 70], [90, 90, 95], [40, 120, 40], [200, 30, 30]])
    colors = np.vstack([colors, np.full((251, 3), 128)])
    image = colors[label] + rng.integers(-25, 25, (*label.shape, 3))
    return image.clip(0, 255).astype(np.uint8)


def write_folders(
    root: Path, train: int = 4, val: int = 2, size: tuple[int, int] = (48, 64)
) -> Path:
    """Write ``images/{train,val}/*.jpg`` and ``labels/{train,val}/*.png``.

    Args:
        root: The data folder to make.
        train: Images in ``train``.
        val: Images in ``val``.
        size: Height and width.
    """
    rng = np.random.default_rng(0)
    for part, number in (("train", train), ("val", val)):
        for kind in ("images", "labels"):
            (root / kind / part).mkdir(parents=True)
        for index in range(number):
            label = street(rng, size)
            image = Image.fromarray(photograph(rng, label))
            image.save(root / "images" / part / f"{part}_{index}.jpg")
            Image.fromarray(label).save(root / "labels" / part / f"{part}_{index}.png")
    return root


def label_files(root: Path, part: str = "*") -> list[Path]:
    """The label files of a data folder."""
    return sorted(root.glob(f"labels/{part}/*.png"))


def change_labels(root: Path, change, part: str = "*") -> None:
    """Replace every label map (H, W) by what ``change`` makes of it."""
    for path in label_files(root, part):
        Image.fromarray(change(np.array(Image.open(path)))).save(path)
