from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from mmengine.config import Config
from mmengine.hooks import Hook
from mmengine.runner import Runner

from mmseg_otseg.engine import ZeroShotRunner
from tests.helpers.small_configs import small, write_data


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("self_training")
    write_data(folder)
    return folder


def transductive(folder: Path, work_dir: Path, iters: int = 4, begin: int = 2) -> Config:
    cfg = small("otseg/voc_512_transductive.py", folder, iters)
    cfg.default_hooks.self_training.begin = begin
    cfg.default_hooks.checkpoint.update(interval=1, save_best=None, max_keep_ckpts=-1)
    cfg.work_dir = str(work_dir)
    cfg.experiment_name = f"{work_dir.parent.name}_{work_dir.name}"
    return cfg


class Recorder(Hook):
    """Notes which classes each iteration trained on; can end the run like a kill."""

    def __init__(self, kill_after: int | None = None) -> None:
        self.kill_after = kill_after
        self.classes: dict[int, str] = {}

    def after_train_iter(self, runner: Runner, *_: Any, **__: Any) -> None:
        self.classes[runner.iter] = runner.model.neck.train_classes
        if runner.iter == self.kill_after:
            raise KeyboardInterrupt


def run(cfg: Config, recorder: Recorder) -> Runner:
    runner = ZeroShotRunner.from_cfg(cfg)
    runner.register_hook(recorder, "LOWEST")
    runner.train()
    return runner


def test_switches_and_survives_kill_and_resume(folder: Path, tmp_path: Path) -> None:
    whole = Recorder()
    expected = run(transductive(folder, tmp_path / "whole"), whole).model.state_dict()
    assert whole.classes == {0: "seen", 1: "seen", 2: "pseudo", 3: "pseudo"}

    cfg = transductive(folder, tmp_path / "killed")
    with pytest.raises(KeyboardInterrupt):
        run(cfg, Recorder(kill_after=3))
    cfg.resume, cfg.load_from = True, str(tmp_path / "killed" / "iter_3.pth")
    cfg.experiment_name += "_resumed"
    resumed = Recorder()
    state = run(cfg, resumed).model.state_dict()
    assert resumed.classes == {3: "pseudo"}
    for name, value in expected.items():
        assert torch.equal(value, state[name]), name


def test_self_training_needs_a_trained_model(folder: Path, tmp_path: Path) -> None:
    cfg = transductive(folder, tmp_path / "untrained", begin=0)
    with pytest.raises(ValueError, match="load_from"):
        run(cfg, Recorder())
