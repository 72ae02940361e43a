"""Every config of the project builds, trains and evaluates."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from mmengine.config import Config
from mmseg.registry import MODELS

from mmseg_otseg.engine import ZeroShotRunner
from tests.helpers.small_configs import CONFIGS, small


def checkpoint(cfg: Config, folder: Path) -> dict[str, torch.Tensor]:
    """The weights of a model, also written as the checkpoint ``trained.pth``."""
    state = MODELS.build(cfg.model).state_dict()
    torch.save({"state_dict": state}, folder / "trained.pth")
    return state


# A config of each method, dataset and setting; the others run on purpose, and all are built and
# resolved by other tests.
QUICK = {
    "otseg/voc_512.py",
    "otseg/context_480_transductive.py",
    "zegot/cocostuff_512.py",
    "zegclip/voc_512_supervised.py",
    "cross_dataset/cocostuff_to_ade20k_512.py",
}


@pytest.mark.parametrize(
    "config",
    [
        config if config in QUICK else pytest.param(config, marks=pytest.mark.slow)
        for config in CONFIGS
        if not config.startswith("training_free")  # tests/datasets/test_open_vocabulary.py
    ],
)
def test_two_iterations_and_an_evaluation(config: str, data_folder: Path, tmp_path: Path) -> None:
    cfg = small(config, data_folder)
    cfg.work_dir = str(tmp_path)
    cfg.experiment_name = config.replace("/", "_").removesuffix(".py")
    if config.startswith("cross_dataset"):
        source = {"cocostuff": "cocostuff_512", "context": "context_480"}
        name = Path(config).name
        method = "zegclip" if name.startswith("zegclip_") else "otseg"
        trained = source[name.removeprefix("zegclip_").split("_to_")[0]]
        state = checkpoint(small(f"{method}/{trained}.py", data_folder), tmp_path)
        cfg.load_from = str(tmp_path / "trained.pth")
        runner = ZeroShotRunner.from_cfg(cfg)
        metrics = runner.test()
        assert "mIoU" in metrics and "hIoU" not in metrics
        for name, value in runner.model.named_parameters():
            assert not value.requires_grad or torch.equal(value, state[name]), name
        return
    if config.endswith("from_checkpoint.py"):
        checkpoint(cfg, tmp_path)
        cfg.load_from = str(tmp_path / "trained.pth")
    runner = ZeroShotRunner.from_cfg(cfg)
    before = {n: p.detach().clone() for n, p in runner.model.named_parameters()}
    runner.train()
    assert runner.iter == 2
    moved = {n for n, p in runner.model.named_parameters() if not torch.equal(p, before[n])}
    assert moved == {n for n, p in runner.model.named_parameters() if p.requires_grad}
    history = runner.message_hub.log_scalars
    assert "val/hIoU" in history and torch.isfinite(torch.tensor(history["train/loss"].current()))
