"""A run of two seconds, with all that is random in a run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from mmengine.config import Config

from mmseg_otseg.engine import resolve
from tests.helpers.folder_data import write_folders
from tests.helpers.small_configs import small
from tests.helpers.tiny_clip import tiny_clip

CLASSES = ("left", "middle", "right")


def write_images(folder: Path, number: int = 4) -> None:
    """Write ``number`` images of 32 x 32 with labels for training and for validation."""
    write_folders(folder, number, number, CLASSES, (32, 32))


def tiny_config(
    folder: Path, clip: dict[str, Any] | None = None, dropout: bool = True, **changes: Any
) -> Config:
    """OTSeg on a folder, its parts wired by hand, as mmseg's ``EncoderDecoder`` takes them.

    It trains for 4 iterations, with a checkpoint and a validation every 2. The last of its three
    classes is unseen.

    Args:
        folder: Where :func:`write_images` wrote the data, and where the run writes.
        clip: Another CLIP than the smallest.
        dropout: Whether anything is random besides the augmentation of the data.
        changes: Top-level entries to merge in.
    """
    rate = 0.1 if dropout else 0.0
    cfg = small("own_data/otseg_512.py", folder, folder / "run")
    cfg.data_root = str(folder)
    cfg.model.clip = clip or dict(model=tiny_clip(), seed=2)  # predicts all classes
    cfg.model.split = dict(classes=CLASSES, unseen=["right"])
    cfg.model.backbone.drop_path_rate = cfg.model.decode_head.dropout = rate
    cfg.model.backbone.visual_prompts.dropout = rate
    cfg.train_cfg.update(max_iters=4, val_interval=2)
    cfg.param_scheduler.warmup_iters = 2
    cfg.default_hooks.checkpoint.update(interval=2)
    cfg.default_hooks.logger.interval = 1
    cfg = resolve(cfg)
    cfg.model.type = "EncoderDecoder"
    for name in ("clip", "split"):
        cfg.model.pop(name)
    cfg.merge_from_dict(changes)
    return cfg
