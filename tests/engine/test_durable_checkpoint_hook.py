from __future__ import annotations

import errno
from pathlib import Path
from unittest.mock import patch

import pytest
from mmengine.fileio import LocalBackend
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
    """The process is gone when the ``number``-th checkpoint is saved."""

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


@pytest.mark.parametrize(
    ("rule", "scores", "best"), [("greater", [1, 3, 2], 3), ("less", [3, 1, float("nan")], 1)]
)
def test_the_best_and_the_last_are_kept(
    rule: str, scores: list[float], best: float, tmp_path: Path
) -> None:
    toy_runner(tmp_path, scores, max_keep_ckpts=1, rule=rule).train()
    assert names(tmp_path) == {"iter_3.pth", "best_score_iter_2.pth"}
    assert best_of(tmp_path / "best_score_iter_2.pth") == best_of(tmp_path / "iter_3.pth") == best
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
    toy_runner(tmp_path, [1, 2, 1.5], max_keep_ckpts=1, resume=True).train()
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
    toy_runner(tmp_path, [1, 2, 3], resume=True).train()
    assert read_checkpoint(tmp_path / "iter_2.pth")["meta"]["iter"] == 2
    assert (tmp_path / "iter_3.pth").is_file()

    toy_runner(tmp_path / "new", [1], resume=True).train()
    assert (tmp_path / "new" / "iter_1.pth").is_file()


def test_logs_do_not_repeat_what_the_hook_records(tmp_path: Path) -> None:
    runner = toy_runner(tmp_path, [1, 2])
    runner.train()
    assert "validated" not in Path(runner.log_dir, f"{runner.timestamp}.log").read_text()


def test_a_full_disk_is_reported_with_the_file(tmp_path: Path) -> None:
    def put(self: LocalBackend, data: bytes, path: str) -> None:
        Path(path).write_bytes(data[:100])
        raise OSError(errno.ENOSPC, "No space left on device")

    said = rf"No space left.*{tmp_path}/iter_1\.pth'"
    with patch.object(LocalBackend, "put", put), pytest.raises(OSError, match=said):
        toy_runner(tmp_path, [1]).train()
    assert not names(tmp_path)


def test_a_new_run_in_a_used_folder_says_so(tmp_path: Path) -> None:
    toy_runner(tmp_path, [1]).train()
    runner = toy_runner(tmp_path, [1])
    runner.train()
    assert "--resume" in Path(runner.log_dir, f"{runner.timestamp}.log").read_text()


def test_settings_that_cannot_work(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="greatest"):
        HOOKS.build(dict(type="DurableCheckpointHook", rule="greatest"))
    with pytest.raises(ValueError, match=r"save_best='hIoU' .* score"):
        toy_runner(tmp_path, [1], save_best="hIoU").train()
