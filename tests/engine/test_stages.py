"""Training that resumes, starts from a checkpoint of other classes, or uses pseudo labels."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from mmengine.config import Config
from mmengine.hooks import Hook
from mmengine.runner import Runner
from mmseg.registry import MODELS

from mmseg_otseg.engine.hooks import stages
from mmseg_otseg.errors import UserError
from tests.helpers.run_tools import forget_runs
from tests.helpers.tiny_run import CLASSES, tiny_config, write_images

THEIRS = dict(classes=["air", "right", "left"], unseen=["air"])


def test_what_carries_over_and_what_does_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[str] = []
    monkeypatch.setattr(stages, "print_log", lambda text, *_: said.append(text))
    other = tiny_config(tmp_path)
    other.model.neck.text.split = THEIRS
    state = MODELS.build(other.model).state_dict()
    bias = {"decode_head.calibrated_seen_bias.ensemble": torch.tensor(0.3)}
    meta = dict(dataset_meta=THEIRS, trained_classes=["right", "left"])
    file = tmp_path / "theirs.pth"
    torch.save(dict(state_dict={**state, **bias}, meta=meta), file)

    write_images(tmp_path)
    cfg = tiny_config(tmp_path, load_from=str(file))
    runner = Runner.from_cfg(cfg)
    runner.optim_wrapper = runner.build_optim_wrapper(runner.optim_wrapper)  # as in training
    runner.load_or_resume()
    weights = {n: p for n, p in runner.model.named_parameters() if p.requires_grad}
    assert all(torch.equal(weight, state[name]) for name, weight in weights.items())
    told, warned = said
    assert str(file) in told and "bias" in told and " right, " in warned
    assert "(air, right, left)" in told and " left, right." in told
    assert runner.model.decode_head.seen_bias == 0.1
    assert runner.model.neck.text.split.classes == CLASSES


class Recorder(Hook):
    """Notes which classes each iteration trained on."""

    def __init__(self) -> None:
        self.classes: dict[int, str] = {}

    def after_train_iter(self, runner: Runner, *_: Any, **__: Any) -> None:
        self.classes[runner.iter] = runner.model.neck.train_classes


def test_self_training_begins_at_its_iteration_of_a_trained_model(tmp_path: Path) -> None:
    write_images(tmp_path)
    cfg = tiny_config(tmp_path, train_dataloader=dict(dataset=dict(setting="transductive")))
    cfg.default_hooks.self_training = dict(type="SelfTrainingHook", begin=2)
    runner, recorder = Runner.from_cfg(cfg), Recorder()
    runner.register_hook(recorder, "LOWEST")
    runner.train()
    assert recorder.classes == {0: "seen", 1: "seen", 2: "pseudo", 3: "pseudo"}
    cfg.default_hooks.self_training.begin, cfg.experiment_name = 0, "untrained"
    with pytest.raises(ValueError, match="load_from"):
        Runner.from_cfg(cfg).train()


@pytest.fixture
def resume(trained_folder: Path, tmp_path: Path) -> Callable[..., str]:
    """Change the checkpoint of iteration 2, resume from it, and return the log."""

    def run(change: Callable[[dict], Any], **changes: Any) -> str:
        checkpoint = torch.load(trained_folder / "run" / "iter_2.pth", weights_only=True)
        change(checkpoint)
        torch.save(checkpoint, file := tmp_path / "changed.pth")
        forget_runs()
        cfg = Config.fromfile(trained_folder / "tiny.py")
        cfg.update(work_dir=str(tmp_path / "run"), load_from=str(file), resume=True)
        cfg.update(val_cfg=None, val_dataloader=None, val_evaluator=None)
        cfg.merge_from_dict({"default_hooks.checkpoint.save_best": None, **changes})
        runner = Runner.from_cfg(cfg)
        runner.train()
        return Path(runner.log_dir, f"{runner.timestamp}.log").read_text()

    return run


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda saved: saved.pop("optimizer"), "no optimizer"),  # as in best_*.pth
        (lambda saved: saved["optimizer"]["param_groups"].pop(), "other parameters"),
    ],
)
def test_checkpoints_that_cannot_be_resumed(
    change: Callable[[dict], Any], words: str, resume: Callable
) -> None:
    with pytest.raises(UserError, match=rf"changed\.pth.*{words}.*load_from"):
        resume(change)


def test_other_settings_than_those_of_the_run_are_reported(resume: Callable) -> None:
    log = resume(lambda saved: None)
    assert "continues with" not in log and "in another way" not in log
    assert "images per step" not in log
    log = resume(
        lambda saved: None,
        train_cfg=dict(max_iters=6),
        train_dataloader=dict(batch_size=1, sampler=dict(type="InfiniteSampler")),
        optim_wrapper=dict(optimizer=dict(lr=1e-3)),
    )
    assert "end is 4, not 6" in log and "in another way" in log
    assert "lr is 60 times" in log and "2 images per step, but this run has 1" in log
    assert "nothing is left" in resume(lambda saved: saved["meta"].update(iter=4))
