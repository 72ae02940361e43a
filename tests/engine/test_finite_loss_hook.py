from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from mmengine.optim import AmpOptimWrapper
from mmengine.runner import Runner

from mmseg_otseg.engine.hooks import FiniteLossHook
from tests.helpers.run_tools import run_tool
from tests.helpers.tiny_run import tiny_config, write_images
from tests.helpers.toy_run import toy_runner


def damage(runner: Runner, at: int, what: str) -> None:
    """Make the loss, or the weights, of an iteration NaN."""
    step = runner.model.train_step

    def train_step(*args: Any, **options: Any) -> Any:
        outputs = step(*args, **options)
        if runner.iter == at and what == "loss":
            outputs["loss"] = outputs["loss"] * float("nan")
        elif runner.iter == at:
            runner.model.linear.weight.data.fill_(float("inf"))
        return outputs

    runner.model.train_step = train_step


@pytest.mark.parametrize("what", ["loss", "weights"])
def test_a_run_whose_loss_is_no_number_stops(what: str, tmp_path: Path) -> None:
    runner = toy_runner(tmp_path, [1, 2, 3, 4])
    damage(runner, 2, what)
    with pytest.raises(ValueError, match=rf" 3.*{what}.*optimizer\.lr.*iter_2\.pth"):
        runner.train()
    assert (tmp_path / "iter_2.pth").is_file()
    assert not list(tmp_path.glob("*3*.pth*"))
    assert (tmp_path / "last_checkpoint").read_text().endswith("iter_2.pth")


def test_damaged_weights_are_refused_when_loaded(tmp_path: Path) -> None:
    runner = toy_runner(tmp_path, [1])
    runner.train()
    saved = torch.load(tmp_path / "iter_1.pth", weights_only=False)
    saved["state_dict"]["linear.weight"].fill_(float("nan"))
    torch.save(saved, tmp_path / "bad.pth")
    with pytest.raises(ValueError, match=r"bad\.pth.*linear\.weight"):
        toy_runner(tmp_path / "other", [1], load_from=str(tmp_path / "bad.pth")).train()


def test_a_loss_scale_may_overflow_for_a_while() -> None:
    hook = FiniteLossHook(overflows=2)
    wrapper = AmpOptimWrapper.__new__(AmpOptimWrapper)
    runner: Any = SimpleNamespace(optim_wrapper=wrapper, iter=0, work_dir="nowhere")
    good, bad = dict(loss=torch.tensor(1.0)), dict(loss=torch.tensor(float("inf")))
    for outputs in (bad, bad, good, bad, bad):
        hook.after_train_iter(runner, 0, outputs=outputs)
    with pytest.raises(ValueError, match="infinite"):
        hook.after_train_iter(runner, 0, outputs=bad)


def test_every_config_has_it(tmp_path: Path) -> None:
    """Also one whose loops have no type, and which names no hook of this project."""
    write_images(tmp_path)
    cfg = tiny_config(tmp_path, custom_hooks=[])
    cfg.train_cfg = dict(by_epoch=False, max_iters=4, val_interval=2)
    cfg.val_cfg = cfg.test_cfg = dict()
    cfg.optim_wrapper.optimizer.lr = 1e30
    cfg.param_scheduler.warmup_iters = 0
    cfg.dump(tmp_path / "untyped.py")
    with pytest.raises(ValueError, match=r" \d.*optimizer\.lr"):
        run_tool("train", tmp_path / "untyped.py")
