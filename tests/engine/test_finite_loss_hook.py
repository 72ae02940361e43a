from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from mmengine.optim import AmpOptimWrapper
from mmengine.runner import Runner

from mmseg_otseg.engine.hooks import FiniteLossHook
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
    runner = toy_runner(tmp_path, [1, 2, 3, 4], [dict(type="FiniteLossHook")])
    damage(runner, 2, what)
    with pytest.raises(ValueError, match=rf" 3.*{what}.*optimizer\.lr.*--resume"):
        runner.train()
    assert (tmp_path / "iter_2.pth").is_file()
    assert not list(tmp_path.glob("*3*.pth*"))
    assert (tmp_path / "last_checkpoint").read_text().endswith("iter_2.pth")


def test_a_loss_scale_may_overflow_for_a_while() -> None:
    hook = FiniteLossHook(overflows=2)
    wrapper = AmpOptimWrapper.__new__(AmpOptimWrapper)
    runner: Any = SimpleNamespace(optim_wrapper=wrapper, iter=0, work_dir="nowhere")
    good, bad = dict(loss=torch.tensor(1.0)), dict(loss=torch.tensor(float("inf")))
    for outputs in (bad, bad, good, bad, bad):
        hook.after_train_iter(runner, 0, outputs=outputs)
    with pytest.raises(ValueError, match="infinite"):
        hook.after_train_iter(runner, 0, outputs=bad)
