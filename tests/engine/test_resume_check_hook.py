from __future__ import annotations

import copy
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.helpers.run_tools import run_tool
from tests.helpers.tiny_run import tiny_config, write_images

NAN = float("nan")


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of tiny.py and of the run that it trained to iteration 4."""
    folder = tmp_path_factory.mktemp("trained")
    write_images(folder)
    tiny_config(folder, val_cfg=None, val_dataloader=None, val_evaluator=None).dump(
        folder / "tiny.py"
    )
    run_tool("train", folder / "tiny.py", "--cfg-options", "default_hooks.checkpoint.save_best=")
    return folder


@pytest.fixture
def resume(trained: Path, tmp_path: Path) -> Callable[..., Path]:
    """Change the checkpoint of iteration 2 and resume from it."""

    def run(change: Callable[[dict], Any], *options: str) -> Path:
        checkpoint = torch.load(trained / "run" / "iter_2.pth", weights_only=False)
        checkpoint = copy.deepcopy(checkpoint)
        change(checkpoint)
        torch.save(checkpoint, tmp_path / "changed.pth")
        run_tool(
            "train",
            trained / "tiny.py",
            *("--work-dir", tmp_path / "run", "--resume", tmp_path / "changed.pth"),
            *("--cfg-options", "default_hooks.checkpoint.save_best=", *options),
        )
        return tmp_path / "run"

    return run


def groups(**changes: Any) -> Callable[[dict], Any]:
    return lambda saved: [group.update(changes) for group in saved["optimizer"]["param_groups"]]


def states(change: Callable[[dict], Any]) -> Callable[[dict], Any]:
    return lambda saved: [change(state) for state in saved["optimizer"]["state"].values()]


def schedule(**changes: Any) -> Callable[[dict], Any]:
    return lambda saved: saved["param_schedulers"][0].update(changes)


REFUSED: dict[str, tuple[Callable[[dict], Any], str]] = {
    "no optimizer": (lambda saved: saved.pop("optimizer"), "optimizer"),
    "an empty one": (lambda saved: saved.update(optimizer={}), "optimizer"),
    "no state": (lambda saved: saved["optimizer"].update(state={}), "state"),
    "a group less": (lambda saved: saved["optimizer"]["param_groups"].pop(), "group"),
    "NaN as rate": (groups(lr=NAN), " nan)"),
    "a word as rate": (groups(lr="high"), "step"),
    "no betas": (
        lambda saved: [group.pop("betas") for group in saved["optimizer"]["param_groups"]],
        "betas",
    ),
    "other shapes": (states(lambda one: one.update(exp_avg=torch.zeros(7, 3))), "exp_avg"),
    "NaN": (states(lambda one: one["exp_avg"].fill_(NAN)), "exp_avg"),
    "a part less": (states(lambda one: one.pop("exp_avg")), "exp_avg"),
    "a word": (states(lambda one: one.update(exp_avg="x")), "exp_avg"),
    "no schedule": (lambda saved: saved.update(param_schedulers=[]), " 0 "),
    "no list of them": (lambda saved: saved.update(param_schedulers={}), " 0 "),
    "an empty schedule": (lambda saved: saved.update(param_schedulers=[{}]), "WarmupPolyLR"),
    "a word as step": (schedule(last_step="x"), "last_step"),
    "no base values": (schedule(base_values=[]), "base_values"),
    "something to call": (schedule(_get_value=3), "WarmupPolyLR"),
    "NaN in the weights": (
        lambda saved: [value.fill_(NAN) for value in saved["state_dict"].values()],
        "NaN",
    ),
    "iterations beyond the end": (lambda saved: saved["meta"].update(iter=400), "max_iters"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_belongs_to_another_run_is_refused_by_name(name: str, resume: Callable) -> None:
    change, word = REFUSED[name]
    with pytest.raises(ValueError, match=rf"changed\.pth.*{re.escape(word)}"):
        resume(change)


def test_a_run_at_its_end_is_told_so(resume: Callable) -> None:
    run = resume(lambda saved: saved["meta"].update(iter=4))
    assert "nothing is left to train" in next(run.glob("*/*.log")).read_text()


def test_another_length_of_the_schedule_is_told(resume: Callable) -> None:
    run = resume(lambda saved: None, "train_cfg.max_iters=6")
    assert re.search("end .*4, .*6", next(run.glob("*/*.log")).read_text())
    assert (run / "iter_6.pth").is_file()
