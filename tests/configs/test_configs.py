"""Every config of the project builds, trains and evaluates."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from mmengine.runner import Runner
from mmseg.registry import MODELS

from tests.configs.generated import ROOT, small

FOLDERS = ("otseg", "zegot", "ablations", "cross_dataset")
CONFIGS = sorted(
    str(path.relative_to(ROOT / "configs"))
    for folder in FOLDERS
    for path in (ROOT / "configs" / folder).glob("*.py")
)


@pytest.mark.parametrize("config", CONFIGS)
def test_two_iterations_and_an_evaluation(config: str, data_folder: Path, tmp_path: Path) -> None:
    cfg = small(config, data_folder)
    cfg.work_dir = str(tmp_path)
    cfg.experiment_name = config.replace("/", "_").removesuffix(".py")
    if config.endswith("from_checkpoint.py"):
        cfg.load_from = str(tmp_path / "inductive.pth")
        torch.save({"state_dict": MODELS.build(cfg.model).state_dict()}, cfg.load_from)
    runner = Runner.from_cfg(cfg)
    if config.startswith("cross_dataset"):
        metrics = runner.test()
        assert "mIoU" in metrics and "hIoU" not in metrics
        return
    before = {n: p.detach().clone() for n, p in runner.model.named_parameters()}
    runner.train()
    assert runner.iter == 2
    moved = {n for n, p in runner.model.named_parameters() if not torch.equal(p, before[n])}
    assert moved == {n for n, p in runner.model.named_parameters() if p.requires_grad}
    history = runner.message_hub.log_scalars
    assert "val/hIoU" in history and torch.isfinite(torch.tensor(history["train/loss"].current()))
