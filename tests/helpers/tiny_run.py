"""A run of ordinary mmseg parts that takes a second, for the tests of what runs around a model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np
from mmengine.config import Config

from tests.helpers.paths import ROOT
from tests.helpers.run_tools import run_tool

CLASSES = ("left", "middle", "right")


def tta_pipeline() -> list[dict[str, Any]]:
    """Every image twice, as it is and flipped; a new one each time, as building it changes it."""
    return [
        dict(type="LoadImageFromFile"),
        dict(
            type="TestTimeAug",
            transforms=[
                [dict(type="RandomFlip", prob=0.0), dict(type="RandomFlip", prob=1.0)],
                [dict(type="LoadAnnotations")],
                [dict(type="PackSegInputs")],
            ],
        ),
    ]


def write_images(folder: Path, number: int = 4) -> None:
    """Write ``number`` images of 32 x 32 with labels for training and for validation."""
    rng = np.random.default_rng(0)
    for part in ("train", "val"):
        for kind in ("images", "labels"):
            (folder / kind / part).mkdir(parents=True)
        for index in range(number):
            label = rng.integers(0, 3, (4, 4), dtype=np.uint8).repeat(8, 0).repeat(8, 1)
            image = label[..., None] * 80 + rng.integers(0, 40, (32, 32, 3), dtype=np.uint8)
            cv2.imwrite(str(folder / "labels" / part / f"{index}.png"), label)
            cv2.imwrite(str(folder / "images" / part / f"{index}.png"), image)


def tiny_config(folder: Path, **changes: Any) -> Config:
    """A config that trains for 4 iterations, with a checkpoint and a validation every 2.

    Args:
        folder: Where :func:`write_images` wrote the data, and where the run writes.
        changes: Top-level entries to merge in.
    """

    def loader(part: str, sampler: dict, batch_size: int) -> dict:
        dataset = dict(
            type="BaseSegDataset",
            data_root=str(folder),
            data_prefix=dict(img_path=f"images/{part}", seg_map_path=f"labels/{part}"),
            img_suffix=".png",
            seg_map_suffix=".png",
            metainfo=dict(classes=CLASSES, palette=[[255, 0, 0], [0, 255, 0], [0, 0, 255]]),
            pipeline=[
                dict(type="LoadImageFromFile"),
                dict(type="LoadAnnotations"),
                dict(type="PackSegInputs"),
            ],
        )
        return dict(batch_size=batch_size, num_workers=0, sampler=sampler, dataset=dataset)

    norm = dict(type="GN", num_groups=2)
    cfg = Config.fromfile(ROOT / "configs" / "_base_" / "default_runtime.py")
    schedule = Config.fromfile(ROOT / "configs" / "_base_" / "schedules" / "schedule_20k.py")
    cfg.merge_from_dict(schedule.to_dict())
    cfg.merge_from_dict(
        dict(
            work_dir=str(folder / "run"),
            model=dict(
                type="EncoderDecoder",
                data_preprocessor=dict(type="SegDataPreProcessor", size=(32, 32)),
                backbone=dict(
                    type="UNet",
                    base_channels=2,
                    num_stages=2,
                    strides=(1, 1),
                    enc_num_convs=(1, 1),
                    dec_num_convs=(1,),
                    downsamples=(True,),
                    enc_dilations=(1, 1),
                    dec_dilations=(1,),
                    norm_cfg=norm,
                ),
                decode_head=dict(
                    type="FCNHead",
                    in_channels=2,
                    in_index=1,
                    channels=4,
                    num_convs=1,
                    num_classes=3,
                    dropout_ratio=0.5,
                    norm_cfg=norm,
                ),
                test_cfg=dict(mode="whole"),
            ),
            train_dataloader=loader("train", dict(type="InfiniteSampler", shuffle=True), 2),
            val_dataloader=loader("val", dict(type="DefaultSampler", shuffle=False), 1),
            test_dataloader=loader("val", dict(type="DefaultSampler", shuffle=False), 1),
            val_evaluator=dict(type="IoUMetric"),
            test_evaluator=dict(type="IoUMetric"),
            tta_pipeline=tta_pipeline(),
            train_cfg=dict(max_iters=4, val_interval=2),
            param_scheduler=dict(warmup_iters=2),
            default_hooks=dict(
                checkpoint=dict(interval=2, save_best="mIoU"), logger=dict(interval=1)
            ),
        )
    )
    cfg.merge_from_dict(changes)
    return cfg


def train_tiny(folder: Path) -> Path:
    """Write the images and ``tiny.py`` into a folder, and train it there; returns the folder."""
    write_images(folder)
    tiny_config(folder).dump(folder / "tiny.py")
    run_tool("train", folder / "tiny.py")
    return folder
