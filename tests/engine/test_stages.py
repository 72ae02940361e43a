"""Training that starts from a checkpoint of other classes, and training on pseudo labels."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from mmengine.hooks import Hook
from mmengine.runner import Runner
from mmseg.registry import MODELS

from mmseg_otseg.engine.hooks import stages
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
    total = sum(weight.numel() for weight in weights.values())
    told, warned = said
    assert f"{file}: {total:,} of {total:,} " in told
    assert "(air, right, left)" in told and " left, right." in told
    assert "bias" in told and "Optimizer" in told and " right, " in warned
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
