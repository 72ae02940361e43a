"""A run of a second: OTSeg's own parts wired by hand, with all that is random in a run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np
from mmengine.config import Config

from mmseg_otseg.models.clip import clip_embed_dim
from tests.helpers.paths import ROOT
from tests.helpers.tiny_clip import tiny_clip

CLASSES = ("left", "middle", "right")


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


def tiny_config(
    folder: Path, clip: dict[str, Any] | None = None, dropout: bool = True, **changes: Any
) -> Config:
    """A config that trains for 4 iterations, with a checkpoint and a validation every 2.

    The last of its three classes is unseen.

    Args:
        folder: Where :func:`write_images` wrote the data, and where the run writes.
        clip: Another CLIP than the smallest.
        dropout: Whether anything is random besides the augmentation of the data.
        changes: Top-level entries to merge in.
    """
    clip, rate = clip or dict(model=tiny_clip()), 0.1 if dropout else 0.0
    split = dict(classes=CLASSES, unseen=["right"])
    load = [dict(type="LoadImageFromFile"), dict(type="LoadAnnotations")]
    augment = [
        dict(type="RandomResize", scale=(64, 64), ratio_range=(0.6, 1.5), keep_ratio=True),
        dict(type="RandomCrop", crop_size=(32, 32), cat_max_ratio=0.9),
        dict(type="RandomFlip", prob=0.5),
        dict(type="PhotoMetricDistortion"),
    ]
    flips = [dict(type="RandomFlip", prob=prob) for prob in (0.0, 1.0)]
    pack = [dict(type="PackSegInputs")]

    def loader(part: str, pipeline: list, sampler: dict, batch_size: int) -> dict:
        data = dict(
            type="BaseSegDataset",
            data_root=str(folder),
            data_prefix=dict(img_path=f"images/{part}", seg_map_path=f"labels/{part}"),
            img_suffix=".png",
            metainfo=dict(classes=CLASSES, palette=[[255, 0, 0], [0, 255, 0], [0, 0, 255]]),
            test_mode=part == "val",
            pipeline=pipeline,
        )
        wrapper = dict(type="ZeroShotDataset", split=split, dataset=data)
        return dict(batch_size=batch_size, num_workers=0, sampler=sampler, dataset=wrapper)

    bases = ("default_runtime", "schedules/schedule_20k")
    cfg = Config()
    for base in bases:
        cfg.merge_from_dict(Config.fromfile(ROOT / f"configs/_base_/{base}.py").to_dict())
    in_order = dict(type="DefaultSampler", shuffle=False)
    cfg.merge_from_dict(
        dict(
            work_dir=str(folder / "run"),
            model=dict(
                type="EncoderDecoder",
                data_preprocessor=dict(type="SegDataPreProcessor", size=(32, 32), seg_pad_val=255),
                backbone=dict(
                    type="CLIPBackbone",
                    clip=clip,
                    visual_prompts=dict(num_tokens=2, dropout=rate),
                    drop_path_rate=rate,
                ),
                neck=dict(
                    type="DLFANeck",
                    clip=clip,
                    text=dict(type="TemplatePrompts", templates="otseg6", split=split),
                ),
                decode_head=dict(
                    type="MPSAHead",
                    embed_dim=clip_embed_dim(clip["model"]),
                    num_classes=3,
                    dropout=rate,
                ),
                test_cfg=dict(mode="whole"),
            ),
            train_dataloader=loader(
                "train", [*load, *augment, *pack], dict(type="ReproducibleInfiniteSampler"), 2
            ),
            val_dataloader=loader("val", [*load, *pack], in_order, 1),
            test_dataloader=loader("val", [*load, *pack], in_order, 1),
            val_evaluator=dict(type="ZeroShotIoUMetric"),
            test_evaluator=dict(type="ZeroShotIoUMetric"),
            tta_pipeline=[
                load[0],
                dict(type="TestTimeAug", transforms=[flips, load[1:], pack]),
            ],
            train_cfg=dict(max_iters=4, val_interval=2),
            param_scheduler=dict(warmup_iters=2),
            default_hooks=dict(
                checkpoint=dict(interval=2, save_best="hIoU"), logger=dict(interval=1)
            ),
        )
    )
    cfg.merge_from_dict(changes)
    return cfg
