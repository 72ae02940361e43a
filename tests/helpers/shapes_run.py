"""Runs of the shapes benchmark that take a second."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from mmengine.config import Config

from tests.helpers.paths import ROOT

SHAPES = ROOT / "configs" / "shapes"
#: A CLIP of the benchmark's size with random weights, few scenes, few iterations.
TINY: dict[str, Any] = {
    "model.clip.pretrained": None,
    "train_cfg.max_iters": 4,
    "train_cfg.val_interval": 4,
    "param_scheduler.warmup_iters": 1,
    "train_dataloader.batch_size": 4,
    "train_dataloader.dataset.dataset.length": 10,
    "val_dataloader.dataset.dataset.length": 6,
    "val_dataloader.batch_size": 3,
    "test_dataloader.dataset.dataset.length": 6,
    "test_dataloader.batch_size": 3,
    "default_hooks.checkpoint.interval": 2,
}


def tiny_config(name: str, work_dir: Path, **changes: Any) -> Config:
    """A config of the benchmark made small.

    Args:
        name: Its file below ``configs/shapes``, without suffix.
        work_dir: Where the run writes.
        changes: Entries to merge in.
    """
    cfg = Config.fromfile(SHAPES / f"{name}.py")
    cfg.merge_from_dict({**TINY, **changes})
    cfg.work_dir = str(work_dir)
    cfg.visualizer.pop("name")
    return cfg


def tiny_options(**changes: Any) -> list[str]:
    """The same as arguments of a tool."""
    options = {**TINY, **changes}
    return ["--cfg-options", *(f"{key}={value}" for key, value in options.items())]
