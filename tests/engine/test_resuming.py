from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from mmengine.runner import Runner

from mmseg_otseg.engine.hooks.resuming import iteration_seed
from tests.helpers.run_tools import forget_runs
from tests.helpers.tiny_run import tiny_config, write_images


def train(folder: Path, **changes: Any) -> Runner:
    forget_runs()
    cfg = tiny_config(folder, val_cfg=None, val_dataloader=None, val_evaluator=None, **changes)
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


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda saved: saved.pop("optimizer"), "no optimizer"),
        (lambda saved: saved["optimizer"]["param_groups"].pop(), "other parameters"),
        (lambda saved: saved.update(param_schedulers=[]), "schedules"),
        (lambda saved: saved["meta"].update(iter=400), "max_iters"),
    ],
)
def test_what_belongs_to_another_run_is_refused_by_name(
    change: Callable[[dict], Any], words: str, resume: Callable
) -> None:
    with pytest.raises(ValueError, match=rf"changed\.pth.*{words}"):
        resume(change)


def test_other_settings_than_those_of_the_run_are_reported(resume: Callable) -> None:
    log = resume(lambda saved: None)
    assert "continues with" not in log and "in another way" not in log
    log = resume(
        lambda saved: None,
        train_cfg=dict(max_iters=6),
        train_dataloader=dict(batch_size=4, sampler=dict(type="InfiniteSampler")),
        optim_wrapper=dict(optimizer=dict(lr=1e-3)),
    )
    assert "end is 4, not 6" in log and "in another way" in log
    assert "with 2 images per step" in log and "continues with 4" in log
    assert "lr is 0.02 times" in log


def test_processes_and_iterations_have_seeds_of_their_own() -> None:
    seeds = {iteration_seed(s, r, i) for s in range(4) for r in range(4) for i in range(50)}
    assert len(seeds) == 4 * 4 * 50
    assert all(0 <= seed < 2**64 for seed in seeds)
