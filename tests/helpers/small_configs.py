"""Data in the layout of each dataset, and configs made small enough to run on it in a second.

Also the methods' models of VOC, and a training step of them.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from mmengine.config import Config, ConfigDict
from mmengine.structures import PixelData
from mmseg.registry import MODELS
from mmseg.structures import SegDataSample
from torch import Tensor, nn

from mmseg_otseg.engine import ZeroShotRunner
from tests.helpers.paths import ROOT
from tests.helpers.tiny_clip import tiny_clip

# The folders whose configs mim lists, and their configs.
FOLDERS = ("otseg", "zegot", "zegclip", "ablations", "cross_dataset", "training_free")
CONFIGS = sorted(
    str(path.relative_to(ROOT / "configs"))
    for folder in FOLDERS
    for path in (ROOT / "configs" / folder).glob("*.py")
)
# What is large in the configs, and what stands for it here.
SMALL = {
    (2048, 512): (256, 64),
    (512, 512): (64, 64),
    (480, 480): (64, 64),
    (426, 426): (48, 48),
    (80, 80): (48, 48),
    (2048, 336): (256, 96),
    (224, 224): (64, 64),
    (112, 112): (32, 32),
    **{
        (int(2048 * r), int(512 * r)): (int(256 * r), int(64 * r))
        for r in (0.5, 0.75, 1.25, 1.5, 1.75)
    },
}
CLIP = {"model": tiny_clip(layers=5), "pretrained": None}


def write_data(folder: Path) -> None:
    """Write all datasets under ``folder/data``."""
    rng = np.random.default_rng(0)
    data = folder / "data"
    voc = data / "VOCdevkit" / "VOC2012"
    for subset, kind in (("train", "Class"), ("aug", "ClassAug"), ("val", "Class")):
        names = [f"{subset}{index}" for index in range(2)]
        _write(rng, voc / "JPEGImages", voc / f"Segmentation{kind}", names, 21)
        _list(voc / "ImageSets" / "Segmentation" / f"{subset}.txt", names)
    context = data / "VOCdevkit" / "VOC2010"
    for subset in ("train", "val"):
        names = [f"{subset}{index}" for index in range(2)]
        _write(rng, context / "JPEGImages", context / "SegmentationClassContext", names, 60)
        _list(context / "ImageSets" / "SegmentationContext" / f"{subset}.txt", names)
    coco, ade = data / "coco_stuff164k", data / "ade" / "ADEChallengeData2016"
    for subset in ("train2017", "val2017"):
        folders = coco / "images" / subset, coco / "annotations" / subset
        _write(rng, *folders, ["0", "1"], 171, "_labelTrainIds.png")
    _write(rng, ade / "images" / "validation", ade / "annotations" / "validation", ["0"], 151)


def small(
    config: str | Path | Config, folder: Path, work_dir: Path | None = None, iters: int = 2
) -> Config:
    """A config of the project on the generated data, with a small CLIP.

    Args:
        config: Path below ``configs/``, or a loaded config.
        folder: Where :func:`write_data` wrote.
        work_dir: Where a run writes; default: ``work`` in that folder.
        iters: Training iterations; one evaluation at their end. Self-training begins at the second.
    """
    cfg = config if isinstance(config, Config) else Config.fromfile(ROOT / "configs" / config)
    cfg = Config(_shrunk(cfg._cfg_dict, folder))
    cfg.model.clip = ConfigDict(CLIP)
    if cfg.model.backbone.get("visual_prompts"):
        cfg.model.backbone.visual_prompts.num_tokens = 2
    for name in ("train", "val", "test"):
        if cfg.get(f"{name}_dataloader"):
            cfg[f"{name}_dataloader"].update(num_workers=0, persistent_workers=False)
    if cfg.get("train_cfg"):
        cfg.train_dataloader.batch_size = 2
        cfg.train_cfg.update(max_iters=iters, val_interval=iters)
        cfg.param_scheduler.warmup_iters = 1
    if cfg.default_hooks.get("self_training"):
        cfg.default_hooks.self_training.begin = min(cfg.default_hooks.self_training.begin, 1)
    cfg.default_hooks.checkpoint.update(interval=iters)
    cfg.work_dir = str(work_dir or folder / "work")
    return cfg


def train(cfg: Config) -> Any:
    """Train and validate: all that is meant to learn has moved, and nothing else.

    Returns:
        The runner.
    """
    runner = ZeroShotRunner.from_cfg(cfg)
    before = {n: p.detach().clone() for n, p in runner.model.named_parameters()}
    runner.train()
    moved = {n for n, p in runner.model.named_parameters() if not torch.equal(p, before[n])}
    assert moved == {n for n, p in runner.model.named_parameters() if p.requires_grad}
    history = runner.message_hub.log_scalars
    assert "val/hIoU" in history and torch.isfinite(torch.tensor(history["train/loss"].current()))
    return runner


def build(name: str, precision: str = "fp32") -> Any:
    """The model of a method, in which nothing is random after it is built."""
    torch.manual_seed(0)
    config = small(f"{name}/voc_512.py", Path("none")).model
    config.clip = ConfigDict(**CLIP, precision=precision)
    config.backbone.drop_path_rate = 0.0
    config.test_cfg = dict(mode="whole")
    model = MODELS.build(config).to(torch.get_default_device())
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
    return model


def losses(model: Any) -> dict[str, Tensor]:
    """Losses of two images with labels of the seen classes."""
    torch.manual_seed(1)
    label = torch.randint(0, 15, (8, 8)).repeat_interleave(8, 0).repeat_interleave(8, 1)
    sample = SegDataSample(gt_sem_seg=PixelData(data=label[None]))
    return model.loss(torch.randn(2, 3, 64, 64), [sample] * 2)


def gradients(model: nn.Module) -> dict[str, Any]:
    """Gradients of all that trains, by name."""
    return {name: p.grad for name, p in model.named_parameters() if p.requires_grad}


def _shrunk(value: Any, folder: Path) -> Any:
    if isinstance(value, dict):
        return {key: _shrunk(item, folder) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        small_value = SMALL.get(tuple(value)) if all(isinstance(v, int) for v in value) else None
        return small_value or type(value)(_shrunk(item, folder) for item in value)
    if isinstance(value, str) and value.startswith("data/"):
        return str(folder / value)
    return value


def _write(
    rng: np.random.Generator,
    images: Path,
    labels: Path,
    names: list[str],
    values: int,
    suffix: str = ".png",
) -> None:
    images.mkdir(parents=True, exist_ok=True)
    labels.mkdir(parents=True, exist_ok=True)
    for name in names:
        label = rng.integers(0, values, (4, 5), dtype=np.uint8)
        label[0, 0] = 255
        label = label.repeat(16, 0).repeat(16, 1)
        image = rng.integers(0, 255, (4, 5, 3), dtype=np.uint8).repeat(16, 0).repeat(16, 1)
        cv2.imwrite(str(images / f"{name}.jpg"), image)
        cv2.imwrite(str(labels / f"{name}{suffix}"), label)


def _list(path: Path, names: list[str]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(names) + "\n")
