"""With the CLIP that the project ships: training with masks of seen classes helps unseen ones."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from mmengine.config import Config
from mmengine.runner import Runner

from mmseg_otseg.evaluation import best_bias, sweep_seen_bias
from tests.shapes.runs import SHAPES

WEIGHTS = SHAPES / "clip" / "shapes_clip.safetensors"
ITERATIONS = 150

pytestmark = pytest.mark.skipif(
    not WEIGHTS.is_file(), reason=f"{WEIGHTS.name}, the CLIP of the shapes benchmark, is not there"
)


def short(name: str, work_dir: Path) -> Config:
    """A config of the benchmark at a fraction of its length, evaluated on part of val."""
    cfg = Config.fromfile(SHAPES / f"{name}.py")
    cfg.train_cfg.update(max_iters=ITERATIONS, val_interval=ITERATIONS)
    cfg.param_scheduler.warmup_iters = 10
    cfg.default_hooks.checkpoint.interval = ITERATIONS
    cfg.val_dataloader.dataset.dataset.length = 200
    cfg.work_dir, cfg.experiment_name = str(work_dir / name), f"{name}_short"
    cfg.visualizer.pop("name")
    return cfg


def test_training_on_seen_classes_helps_unseen_ones(tmp_path: Path) -> None:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        free = best_bias(sweep_seen_bias(short("training_free", tmp_path), None))
        cfg = short("otseg_plus", tmp_path)
        for name in ("cfg", "dataloader", "evaluator"):
            cfg[f"val_{name}"] = cfg[f"test_{name}"] = None
        Runner.from_cfg(cfg).train()
        cfg = short("otseg_plus", tmp_path)
        checkpoint = tmp_path / "otseg_plus" / f"iter_{ITERATIONS}.pth"
        trained = best_bias(sweep_seen_bias(cfg, checkpoint))
    finally:
        torch.set_num_threads(threads)
    assert trained["mIoU_U"] > free["mIoU_U"] > 100 / 20
    assert trained["hIoU"] > free["hIoU"]
