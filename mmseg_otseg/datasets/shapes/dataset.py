"""The shapes scenes as an mmsegmentation dataset that needs no files, and written to files."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from mmcv.transforms import BaseTransform
from mmseg.datasets import BaseSegDataset
from mmseg.registry import DATASETS, TRANSFORMS
from PIL import Image

from mmseg_otseg.errors import UserError

from .scenes import BACKGROUND, SUBSETS, render_scene
from .worlds import SHAPES_CLASSES, SHAPES_PALETTE, World, get_world


@DATASETS.register_module()
class ShapesDataset(BaseSegDataset):
    """Procedural scenes of colored shapes, a benchmark that any machine can run.

    Item ``i`` depends only on (seed, subset, i, world, severity, size), not on the process that
    draws it. Nothing is read from or written to disk. The pipeline starts with ``LoadShapesScene``
    instead of ``LoadImageFromFile`` and ``LoadAnnotations``.

    Args:
        world: Name of a world; see ``WORLDS``.
        subset: ``train``; ``val``, for all decisions; ``test``, only for reported results; or
            ``pretrain``, for training CLIP.
        length: Number of scenes.
        size: Image side in pixels, or (height, width).
        seed: Another seed gives different scenes in every subset.
        severity: Mean photometric severity, 0..0.95; None uses the world's own.
        metainfo: As in ``BaseSegDataset``. If ``classes`` lists only some of the 20 classes, pixels
            of the others become 255.
        pipeline: Transforms or their configs.
        **kwargs: Other arguments of ``BaseSegDataset`` (test_mode, indices, lazy_init, ...).

    Raises:
        UserError: If the world, subset, length or severity is not valid.
    """

    METAINFO = dict(classes=SHAPES_CLASSES, palette=SHAPES_PALETTE)

    def __init__(
        self,
        world: str | World = "clean",
        subset: str = "train",
        length: int = 2000,
        size: int | Sequence[int] = 64,
        seed: int = 0,
        severity: float | None = None,
        metainfo: dict | None = None,
        pipeline: Sequence[dict | Callable] = (),
        **kwargs: Any,
    ) -> None:
        if subset not in SUBSETS:
            raise UserError(f"unknown subset {subset!r}; choose one of {', '.join(SUBSETS)}")
        if length < 1:
            raise UserError(f"length is {length}; a dataset needs at least one scene")
        self.world = get_world(world, severity)
        self.subset, self.length, self.seed = subset, length, seed
        self.size = (size, size) if isinstance(size, int) else (int(size[0]), int(size[1]))
        super().__init__(metainfo=metainfo, pipeline=list(pipeline), **kwargs)

    def load_data_list(self) -> list[dict]:
        """One entry per scene: how to draw it, and a name used as its path."""
        stem = f"shapes_{self.world.name}_{self.subset}_{self.seed}"
        return [
            dict(
                img_path=f"{stem}_{index:06d}.png",
                scene=dict(
                    world=self.world,
                    subset=self.subset,
                    index=index,
                    seed=self.seed,
                    size=self.size,
                ),
                label_map=self.label_map,
                reduce_zero_label=self.reduce_zero_label,
                seg_fields=[],
            )
            for index in range(self.length)
        ]


@TRANSFORMS.register_module()
class LoadShapesScene(BaseTransform):
    """Draw the scene that a ``ShapesDataset`` entry describes.

    Required keys: ``scene`` (arguments of ``render_scene``), ``label_map``, ``seg_fields``.

    Added keys: ``img`` (H, W, 3) uint8 BGR as from OpenMMLab's loaders, ``img_shape``,
    ``ori_shape`` (H, W), ``gt_seg_map`` (H, W) uint8 class indices with 255 for background;
    ``gt_seg_map`` joins ``seg_fields``.
    """

    def transform(self, results: dict) -> dict:
        """Add the image and its labels to ``results``."""
        scene = render_scene(**results["scene"])
        results["img"] = np.ascontiguousarray(scene.image[..., ::-1])
        results["img_shape"] = results["ori_shape"] = scene.labels.shape
        labels = scene.labels
        if results.get("label_map") is not None:
            lookup = np.full(256, BACKGROUND, np.uint8)
            for old, new in results["label_map"].items():
                lookup[old] = new
            labels = lookup[labels]
        results["gt_seg_map"] = labels
        results["seg_fields"].append("gt_seg_map")
        return results

    def __repr__(self) -> str:
        return f"{type(self).__name__}()"


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
