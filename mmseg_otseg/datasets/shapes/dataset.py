"""The shapes scenes as an mmsegmentation dataset that needs no files, and written to files."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from mmcv.transforms import BaseTransform
from mmseg.datasets import BaseSegDataset
from mmseg.registry import DATASETS, TRANSFORMS
from PIL import Image

from mmseg_otseg.errors import UserError

from .scenes import BACKGROUND, SHAPES_CLASSES, SHAPES_PALETTE, SUBSETS, render_scene


@DATASETS.register_module()
class ShapesDataset(BaseSegDataset):
    """Procedural scenes of colored shapes, a benchmark that any machine can run.

    Item ``i`` depends only on (seed, subset, i, size), not on the process that draws it. Nothing is
    read from or written to disk. The pipeline starts with ``LoadShapesScene`` instead of
    ``LoadImageFromFile`` and ``LoadAnnotations``.

    Args:
        subset: ``train``; ``val``, for all decisions; ``test``, only for reported results; or
            ``pretrain``, for training CLIP.
        length: Number of scenes.
        size: Image side in pixels, or (height, width).
        seed: Another seed gives different scenes in every subset.
        **kwargs: Other arguments of ``BaseSegDataset`` (pipeline, test_mode, lazy_init, ...).

    Raises:
        UserError: If the subset is unknown.
    """

    METAINFO = dict(classes=SHAPES_CLASSES, palette=SHAPES_PALETTE)

    def __init__(
        self,
        subset: str = "train",
        length: int = 2000,
        size: int | Sequence[int] = 64,
        seed: int = 0,
        **kwargs: Any,
    ) -> None:
        if subset not in SUBSETS:
            raise UserError(f"unknown subset {subset!r}; choose one of {', '.join(SUBSETS)}")
        self.subset, self.length, self.seed = subset, length, seed
        self.size = (size, size) if isinstance(size, int) else (int(size[0]), int(size[1]))
        super().__init__(**kwargs)

    def load_data_list(self) -> list[dict]:
        """One entry per scene: how to draw it, and a name used as its path."""
        return [
            dict(
                img_path=f"shapes_{self.subset}_{self.seed}_{index:06d}.png",
                scene=dict(subset=self.subset, index=index, seed=self.seed, size=self.size),
                reduce_zero_label=self.reduce_zero_label,
                seg_fields=[],
            )
            for index in range(self.length)
        ]


@TRANSFORMS.register_module()
class LoadShapesScene(BaseTransform):
    """Draw the scene that a ``ShapesDataset`` entry describes.

    Required keys: ``scene`` (arguments of ``render_scene``), ``seg_fields``.

    Added keys: ``img`` (H, W, 3) uint8 BGR as from OpenMMLab's loaders, ``img_shape``,
    ``ori_shape`` (H, W), ``gt_seg_map`` (H, W) uint8 class indices with 255 for background;
    ``gt_seg_map`` joins ``seg_fields``.
    """

    def transform(self, results: dict) -> dict:
        """Add the image and its labels to ``results``."""
        scene = render_scene(**results["scene"])
        results["img"] = np.ascontiguousarray(scene.image[..., ::-1])
        results["img_shape"] = results["ori_shape"] = scene.labels.shape
        results["gt_seg_map"] = scene.labels
        results["seg_fields"].append("gt_seg_map")
        return results


def export_voc(
    out: str | Path,
    train: int,
    val: int,
    aug: int = 0,
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
        size: Image side in pixels, or (height, width).
        seed: Seed of the scenes.

    Returns:
        The folder ``OUT/VOCdevkit/VOC2012``.

    Raises:
        FileExistsError: If this folder already exists.
    """
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
            scene = render_scene(subset, index, seed, size)
            image = Image.fromarray(scene.image)
            image.save(root / "JPEGImages" / f"{name}.jpg", quality=95, subsampling=0)
            values = np.where(scene.labels == BACKGROUND, 0, scene.labels + 1).astype(np.uint8)
            mask = Image.fromarray(values).convert("P")
            mask.putpalette(palette.tobytes())
            mask.save(root / "SegmentationClassAug" / f"{name}.png")
            if part != "aug":
                mask.save(root / "SegmentationClass" / f"{name}.png")
    return root
