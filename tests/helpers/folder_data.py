"""Photographs of streets and their label files in two folders, drawn in a moment."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from PIL import Image

CLASSES = ("sky", "building", "road", "tree", "car")
UNSEEN = ("tree",)


def street(
    rng: np.random.Generator, classes: Sequence[str], size: tuple[int, int]
) -> tuple[np.ndarray, np.ndarray]:
    """An image (H, W, 3) with a stripe of each class, at any place, and its label map (H, W)."""
    label = np.broadcast_to(np.arange(size[1]) * len(classes) // size[1], size).astype(np.uint8)
    label = np.roll(label, rng.integers(size[1]), 1)
    colors = np.random.default_rng(1).integers(40, 215, (len(classes), 3))
    return (colors[label] + rng.integers(-15, 15, (*size, 3))).astype(np.uint8), label


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
