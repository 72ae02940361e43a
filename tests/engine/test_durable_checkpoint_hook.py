from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from mmengine.hooks import Hook
from mmengine.runner import Runner
from mmseg.registry import HOOKS

from mmseg_otseg.engine import read_checkpoint
from tests.helpers.toy_run import toy_runner


def names(folder: Path) -> set[str]:
    return {file.name for file in folder.glob("*.pth*")}


def best_of(file: Path) -> float:
    return read_checkpoint(file)["message_hub"]["runtime_info"]["best_score"]


class FailingSave(Hook):
    """The disk is full, or the process gone, when the ``number``-th checkpoint is saved."""

    def __init__(self, number: int) -> None:
        self.left = number

    def before_save_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        self.left -= 1
        if self.left == 0:
            raise KeyboardInterrupt


def train(runner: Runner) -> None:
    try:
        runner.train()
    except KeyboardInterrupt:
        return


def test_the_best_and_the_last_are_kept(tmp_path: Path) -> None:
    toy_runner(tmp_path, [1, 3, 2], max_keep_ckpts=1).train()
    assert names(tmp_path) == {"iter_3.pth", "best_score_iter_2.pth"}
    assert best_of(tmp_path / "best_score_iter_2.pth") == best_of(tmp_path / "iter_3.pth") == 3
    assert (tmp_path / "last_checkpoint").read_text() == str(tmp_path / "iter_3.pth")


# In each iteration first its checkpoint is saved, then the best, then its checkpoint again.
@pytest.mark.parametrize(
    ("number", "left"),
    [
        (1, set()),
        (4, {"iter_1.pth", "best_score_iter_1.pth"}),
        (5, {"iter_2.pth", "best_score_iter_1.pth"}),
        (6, {"iter_2.pth", "best_score_iter_2.pth"}),
    ],
)
def test_nothing_is_deleted_before_its_successor_is_there(
    number: int, left: set[str], tmp_path: Path
) -> None:
    train(toy_runner(tmp_path, [1, 2, 1.5], [FailingSave(number)], max_keep_ckpts=1))
    assert names(tmp_path) == left
    resumed = toy_runner(tmp_path, [1, 2, 1.5], max_keep_ckpts=1, resume=True)
    resumed.train()
    assert names(tmp_path) == {"iter_3.pth", "best_score_iter_2.pth"}
    assert best_of(tmp_path / "iter_3.pth") == 2


@pytest.mark.parametrize("number", [8, 9])  # before and after the best is saved
def test_a_validation_that_a_kill_prevented_is_made_good(number: int, tmp_path: Path) -> None:
    train(toy_runner(tmp_path, [1, 2, 3], [FailingSave(number)]))
    resumed = toy_runner(tmp_path, [1, 2, 3], resume=True)
    resumed.train()
    assert resumed.message_hub.get_scalar("val/score").current() == 3
    assert best_of(tmp_path / "iter_3.pth") == 3

    again = toy_runner(tmp_path, [1, 2, 3], resume=True)  # once is enough
    again.val_loop.run = lambda: pytest.fail("validated again")
    again.train()


def test_resumes_from_the_latest_that_can_be_read(tmp_path: Path) -> None:
    toy_runner(tmp_path, [1, 2]).train()
    (tmp_path / "iter_2.pth").write_bytes(b"damaged")
    (tmp_path / "last_checkpoint").touch()
    resumed = toy_runner(tmp_path, [1, 2, 3], resume=True)
    resumed.train()
    assert names(tmp_path) >= {"iter_1.pth", "iter_2.pth", "iter_3.pth"}
    assert read_checkpoint(tmp_path / "iter_2.pth")["meta"]["iter"] == 2

    (tmp_path / "new").mkdir()
    (tmp_path / "new" / "last_checkpoint").touch()
    toy_runner(tmp_path / "new", [1], resume=True).train()
    assert (tmp_path / "new" / "iter_1.pth").is_file()


def test_a_better_best_is_not_replaced(tmp_path: Path) -> None:
    """Back to an earlier checkpoint; another machine's rounding scores worse this time."""
    toy_runner(tmp_path, [1, 5, 2]).train()
    toy_runner(tmp_path, [1, 4, 3], resume=True, load_from=str(tmp_path / "iter_1.pth")).train()
    assert {name for name in names(tmp_path) if "best" in name} == {"best_score_iter_2.pth"}
    assert best_of(tmp_path / "best_score_iter_2.pth") == best_of(tmp_path / "iter_3.pth") == 5


def test_nothing_of_another_folder_is_touched(tmp_path: Path) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    toy_runner(first, [1, 2], max_keep_ckpts=2).train()
    before = {file: file.read_bytes() for file in first.glob("*.pth")}
    checkpoint = read_checkpoint(first / "iter_2.pth")
    info = checkpoint["message_hub"]["runtime_info"]
    (tmp_path / "precious").mkdir()
    for path in (first / "best_score_iter_2.pth", tmp_path / "precious", second / "notes.txt"):
        info["best_ckpt"] = str(path)
        info["keep_ckpt_ids"] = [1, 2]
        torch.save(checkpoint, tmp_path / "from.pth")
        second.mkdir(exist_ok=True)
        (second / "notes.txt").touch()
        scores = [1, 2, 3, 4]
        options: dict[str, Any] = dict(resume=True, load_from=str(tmp_path / "from.pth"))
        toy_runner(second, scores, max_keep_ckpts=1, **options).train()
        assert {file: file.read_bytes() for file in before} == before
        assert (tmp_path / "precious").is_dir() and (second / "notes.txt").is_file()
        assert names(second) == {"iter_4.pth", "best_score_iter_4.pth"}


def test_a_new_run_in_a_used_folder_says_so(tmp_path: Path) -> None:
    toy_runner(tmp_path, [1]).train()
    runner = toy_runner(tmp_path, [1])
    runner.train()
    assert "--resume" in Path(runner.log_dir, f"{runner.timestamp}.log").read_text()


def test_settings_that_cannot_work(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="backend_args"):
        HOOKS.build(dict(type="DurableCheckpointHook", out_dir="s3://bucket/run"))
    with pytest.raises(ValueError, match=r"save_best='hIoU' .* score"):
        toy_runner(tmp_path, [1], save_best="hIoU").train()


def test_several_metrics_and_the_first_one(tmp_path: Path) -> None:
    train(toy_runner(tmp_path, [1, 2, 1], [FailingSave(8)], save_best="auto"))
    toy_runner(tmp_path, [1, 2, 1], save_best="auto", resume=True).train()
    assert {name for name in names(tmp_path) if "best" in name} == {"best_score_iter_2.pth"}

    both = dict(save_best=["score", "loss"], rule=["greater", "less"])
    train(toy_runner(tmp_path / "both", [1, 2, 1], [FailingSave(8)], **both))
    resumed = toy_runner(tmp_path / "both", [1, 2, 1], resume=True, **both)
    resumed.train()
    best = {name for name in names(tmp_path / "both") if "best" in name}
    assert best == {"best_score_iter_2.pth", "best_loss_iter_1.pth"}
