"""Shapes scenes written to disk in the layout of PASCAL VOC 2012."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from mmseg_otseg.errors import UserError

from .classes import SHAPES_PALETTE
from .scenes import BACKGROUND, render_scene
from .worlds import World, get_world

__all__ = ["export_voc"]


def export_voc(
    out: str | Path,
    train: int,
    val: int,
    aug: int = 0,
    world: str | World = "clean",
    size: int | tuple[int, int] = 64,
    seed: int = 0,
) -> Path:
    """Write scenes to ``OUT/VOCdevkit/VOC2012``, in the layout of mmsegmentation's dataset guide.

    Images go to ``JPEGImages`` (quality 95, no chroma subsampling). PNG masks with a palette, with
    0 for background and class index + 1 elsewhere, go to ``SegmentationClassAug`` and, for train
    and val, also to ``SegmentationClass``. The names go to
    ``ImageSets/Segmentation/{train,aug,val}.txt``. Scene ``i`` of train is item ``i`` of
    ``ShapesDataset(subset="train")``; the scenes of aug follow those of train.

    Args:
        out: Folder to write to, usually mmsegmentation's ``data``.
        train: Number of training scenes.
        val: Number of validation scenes.
        aug: Number of additional training scenes, which take the place of VOC's extra masks (SBD).
        world: World of the scenes.
        size: Image side in pixels, or (height, width).
        seed: Seed of the scenes.

    Returns:
        The folder ``OUT/VOCdevkit/VOC2012``.

    Raises:
        UserError: If a number of scenes is negative.
        FileExistsError: If this folder already exists.
    """
    if min(train, val, aug) < 0:
        raise UserError(f"numbers of scenes must not be negative, got {train}, {val}, {aug}")
    world = get_world(world)
    root = Path(out) / "VOCdevkit" / "VOC2012"
    if root.exists():
        raise FileExistsError(f"{root} already exists; remove it or choose another folder")
    for name in ("JPEGImages", "SegmentationClass", "SegmentationClassAug"):
        (root / name).mkdir(parents=True)
    lists = root / "ImageSets" / "Segmentation"
    lists.mkdir(parents=True)

    palette = np.zeros((256, 3), np.uint8)
    palette[1 : 1 + len(SHAPES_PALETTE)] = SHAPES_PALETTE
    parts = (("train", "train", 0, train), ("aug", "train", train, aug), ("val", "val", 0, val))
    for part, subset, first, count in parts:
        names = [f"{subset}_{index:06d}" for index in range(first, first + count)]
        (lists / f"{part}.txt").write_text("".join(f"{name}\n" for name in names))
        for index, name in enumerate(names, start=first):
            scene = render_scene(world, subset, index, seed, size)
            image = Image.fromarray(scene.image)
            image.save(root / "JPEGImages" / f"{name}.jpg", quality=95, subsampling=0)
            values = np.where(scene.labels == BACKGROUND, 0, scene.labels + 1).astype(np.uint8)
            mask = Image.fromarray(values).convert("P")
            mask.putpalette(palette.tobytes())
            mask.save(root / "SegmentationClassAug" / f"{name}.png")
            if part != "aug":
                mask.save(root / "SegmentationClass" / f"{name}.png")
    return root
