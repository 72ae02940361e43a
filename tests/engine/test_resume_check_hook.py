from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from mmengine.runner import Runner

from tests.helpers.run_tools import forget_runs
from tests.helpers.tiny_run import tiny_config, write_images

NO_VALIDATION = dict(val_cfg=None, val_dataloader=None, val_evaluator=None)


def train(folder: Path, **changes: Any) -> Runner:
    forget_runs()
    cfg = tiny_config(folder, **NO_VALIDATION, **changes)
    cfg.default_hooks.checkpoint.save_best = None
    runner = Runner.from_cfg(cfg)
    runner.train()
    return runner


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the data, with a run to iteration 4 in ``run``."""
    folder = tmp_path_factory.mktemp("trained")
    write_images(folder)
    train(folder)
    return folder


@pytest.fixture
def resume(trained: Path, tmp_path: Path) -> Callable[..., str]:
    """Change the checkpoint of iteration 2, resume from it, and return the log."""

    def run(change: Callable[[dict], Any], **changes: Any) -> str:
        checkpoint = torch.load(trained / "run" / "iter_2.pth", weights_only=True)
        change(checkpoint)
        torch.save(checkpoint, file := tmp_path / "changed.pth")
        options = dict(work_dir=str(tmp_path / "run"), load_from=str(file), resume=True, **changes)
        runner = train(trained, **options)
        return Path(runner.log_dir, f"{runner.timestamp}.log").read_text()

    return run


REFUSED: dict[str, tuple[Callable[[dict], Any], str]] = {
    "no optimizer": (lambda saved: saved.pop("optimizer"), "no optimizer"),
    "a group less": (lambda saved: saved["optimizer"]["param_groups"].pop(), "other parameters"),
    "no schedule": (lambda saved: saved.update(param_schedulers=[]), "schedules"),
    "beyond the end": (lambda saved: saved["meta"].update(iter=400), "max_iters"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_belongs_to_another_run_is_refused_by_name(name: str, resume: Callable) -> None:
    change, words = REFUSED[name]
    with pytest.raises(ValueError, match=rf"changed\.pth.*{words}"):
        resume(change)


def test_another_length_and_another_sampler_are_reported(resume: Callable) -> None:
    log = resume(lambda saved: None, train_cfg=dict(max_iters=6))
    assert re.search("end is 4, not 6", log)
    assert "ReproducibleInfiniteSampler" in log


def test_another_learning_rate_and_batch_size_are_reported(resume: Callable) -> None:
    assert "continues with" not in resume(lambda saved: None)
    log = resume(
        lambda saved: None,
        train_dataloader=dict(batch_size=4),
        optim_wrapper=dict(optimizer=dict(lr=1e-3)),
    )
    assert "with 2 images per step" in log and "continues with 4" in log
    assert re.search(r"lr is 0\.02 times", log)
