"""OTSeg's own components in a run of a second, with everything random that a run can have."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from mmengine.config import Config
from mmengine.runner import Runner

from mmseg_otseg.engine import ZeroShotRunner
from mmseg_otseg.models.clip import clip_embed_dim
from tests.helpers.tiny_clip import tiny_clip
from tests.helpers.tiny_run import CLASSES, tiny_config


def otseg_config(folder: Path, dropout: bool = True, **changes: Any) -> Config:
    """Like :func:`~tests.helpers.tiny_run.tiny_config`, but of a zero-shot OTSeg with a small CLIP.

    Args:
        folder: Where the data are, and where the run writes.
        dropout: Whether anything is random besides the augmentation of the data.
        changes: Top-level entries to merge in.
    """
    clip = dict(model=tiny_clip())
    split = dict(classes=CLASSES, unseen=["right"])
    cfg = tiny_config(folder)
    for part in ("train", "val", "test"):
        loader = cfg[f"{part}_dataloader"]
        loader.dataset = dict(type="ZeroShotDataset", split=split, dataset=loader.dataset)
        cfg[f"{part}_evaluator"] = dict(type="ZeroShotIoUMetric")
    cfg.val_dataloader.dataset.dataset.test_mode = True
    cfg.test_dataloader.dataset.dataset.test_mode = True
    cfg.train_dataloader.sampler.type = "ReproducibleInfiniteSampler"
    cfg.train_dataloader.dataset.dataset.pipeline = [
        dict(type="LoadImageFromFile"),
        dict(type="LoadAnnotations"),
        dict(type="RandomResize", scale=(64, 64), ratio_range=(0.6, 1.5), keep_ratio=True),
        dict(type="RandomCrop", crop_size=(32, 32), cat_max_ratio=0.9),
        dict(type="RandomFlip", prob=0.5),
        dict(type="PhotoMetricDistortion"),
        dict(type="PackSegInputs"),
    ]
    rate = 0.1 if dropout else 0.0
    cfg.model = dict(
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
        decode_head=dict(type="MPSAHead", embed_dim=32, num_classes=3, dropout=rate),
        test_cfg=dict(mode="whole"),
    )
    cfg.default_hooks.checkpoint.save_best = "hIoU"
    cfg.merge_from_dict(changes)
    return cfg


def otseg_runner(folder: Path, clip: dict[str, Any], **changes: Any) -> Runner:
    """A run of :func:`otseg_config` over another CLIP."""
    config = otseg_config(folder, **changes)
    config.model.backbone.clip = config.model.neck.clip = clip
    config.model.decode_head.embed_dim = clip_embed_dim(clip["model"])
    return ZeroShotRunner.from_cfg(config)
