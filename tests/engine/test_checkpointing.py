"""What a run leaves in its folder, and who may write there."""

from __future__ import annotations

import errno
import multiprocessing
import os
import re
import signal
import time
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest
import torch
from mmengine.fileio import LocalBackend
from mmengine.hooks import Hook
from mmengine.runner import Runner

from mmseg_otseg.engine import ZeroShotRunner, read_checkpoint
from mmseg_otseg.engine.hooks import checkpointing
from mmseg_otseg.engine.run_folder import latest_checkpoint, lock_folder
from tests.helpers.tiny_run import tiny_config, write_images
from tests.helpers.toy_run import toy_runner


def names(folder: Path) -> set[str]:
    return {file.name for file in folder.glob("*.pth*")}


def best_of(file: Path) -> float:
    return read_checkpoint(file)["message_hub"]["runtime_info"]["best_score"]


@pytest.mark.parametrize("last", [2, float("nan")])
def test_the_best_and_the_last_are_kept(last: float, tmp_path: Path) -> None:
    toy_runner(tmp_path, [1, 3, last], max_keep_ckpts=1).train()
    assert names(tmp_path) == {"iter_3.pth", "best_score_iter_2.pth"}
    assert best_of(tmp_path / "best_score_iter_2.pth") == best_of(tmp_path / "iter_3.pth") == 3
    assert (tmp_path / "last_checkpoint").read_text() == str(tmp_path / "iter_3.pth")
    again = toy_runner(tmp_path, [1])
    again.train()
    assert "--resume" in Path(again.log_dir, f"{again.timestamp}.log").read_text()


class FailingSave(Hook):
    """The process is gone when the ``number``-th checkpoint is saved."""

    def __init__(self, number: int) -> None:
        self.left = number

    def before_save_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        self.left -= 1
        if self.left == 0:
            raise KeyboardInterrupt


# In each iteration its checkpoint is saved, then the best, then its checkpoint again.
@pytest.mark.parametrize(("number", "newest"), [(2, 1), (4, 1), (5, 2), (6, 2), (8, 3)])
def test_a_run_that_ends_while_it_saves_goes_on(number: int, newest: int, tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        toy_runner(tmp_path, [1, 2, 3], [FailingSave(number)], max_keep_ckpts=1).train()
    # Nothing was deleted before its successor was there.
    assert latest_checkpoint(tmp_path) == str(tmp_path / f"iter_{newest}.pth")
    toy_runner(tmp_path, [1, 2, 3], max_keep_ckpts=1, resume=True).train()
    assert names(tmp_path) == {"iter_3.pth", "best_score_iter_3.pth"}
    assert best_of(tmp_path / "iter_3.pth") == 3


def test_a_full_disk_is_reported_with_the_file(tmp_path: Path) -> None:
    def put(self: LocalBackend, data: bytes, path: str) -> None:
        Path(path).write_bytes(data[:100])
        raise OSError(errno.ENOSPC, "No space left on device")

    said = rf"No space left.*{tmp_path}/iter_1\.pth'"
    with patch.object(LocalBackend, "put", put), pytest.raises(OSError, match=said):
        toy_runner(tmp_path, [1]).train()
    assert not names(tmp_path)


def test_a_metric_that_validation_lacks_is_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"save_best='hIoU' .* score"):
        toy_runner(tmp_path, [1], save_best="hIoU").train()


# Which checkpoint is the latest ------------------------------------------------------------------


def write_checkpoint(file: Path) -> Path:
    """A checkpoint that a run could continue from."""
    torch.save(dict(meta={}, optimizer={}, message_hub={}, state_dict={}), file)
    return file


@pytest.mark.parametrize(
    ("pointer", "latest"),
    [("gone.pth", 10), ("iter_12.pth", 10), (None, 10), ("/elsewhere/iter_4.pth", 4)],
)
def test_the_pointer_comes_first_then_the_newest_readable_one(
    pointer: str | None, latest: int, tmp_path: Path
) -> None:
    write_checkpoint(tmp_path / "iter_4.pth")
    newest = write_checkpoint(tmp_path / "iter_10.pth")
    (tmp_path / "iter_12.pth").write_bytes(newest.read_bytes()[:-100])
    torch.save({"state_dict": {}}, tmp_path / "iter_14.pth")  # nothing to resume from
    write_checkpoint(tmp_path / "best_hIoU_iter_18.pth")
    if pointer is not None:
        (tmp_path / "last_checkpoint").write_text(pointer)
    assert latest_checkpoint(tmp_path) == str(tmp_path / f"iter_{latest}.pth")


def test_a_folder_without_a_checkpoint(tmp_path: Path) -> None:
    assert latest_checkpoint(tmp_path / "new") is None
    (tmp_path / "last_checkpoint").touch()
    assert latest_checkpoint(tmp_path) is None
    (tmp_path / "iter_2.pth").write_bytes(b"no checkpoint")
    with pytest.raises(ValueError, match=r"iter_2\.pth"):
        latest_checkpoint(tmp_path)


# One run at a time --------------------------------------------------------------------------------

FORK = multiprocessing.get_context("fork")
LOCK = dict(type="WorkDirLockHook")


class Pause(Hook):
    """Says that training has begun, and waits in its first iteration."""

    def __init__(self, begun: Any, go_on: Any) -> None:
        self.begun, self.go_on = begun, go_on

    def before_train_iter(self, *_: Any, **__: Any) -> None:
        self.begun.set()
        assert self.go_on.wait(60)


class Training:
    """Trains in a folder until ``go_on`` is set."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.begun, self.go_on = folder, FORK.Event(), FORK.Event()

    def __call__(self) -> None:
        torch.set_num_threads(1)  # threads of the other process are not in its copy
        toy_runner(self.folder, [1, 2], [LOCK, Pause(self.begun, self.go_on)]).train()


def test_a_second_training_is_refused_and_told_by_whom(tmp_path: Path) -> None:
    train = Training(tmp_path)
    first = FORK.Process(target=train)
    first.start()
    assert train.begun.wait(60)
    with pytest.raises(BlockingIOError, match=rf"process {first.pid} on "):
        toy_runner(tmp_path, [1], [LOCK], resume=True).train()
    assert toy_runner(tmp_path, [1], [LOCK]).val()["score"] == 1  # a validation may run beside it
    train.go_on.set()
    first.join()
    assert first.exitcode == 0
    toy_runner(tmp_path, [1, 2, 3], [LOCK], resume=True).train()


def test_a_worker_ends_with_its_launcher(tmp_path: Path) -> None:
    train = Training(tmp_path)

    def launch() -> None:
        os.environ["TORCHELASTIC_RUN_ID"] = "1"  # as torchrun does
        worker = FORK.Process(target=train)
        worker.start()
        worker.join()

    launcher = FORK.Process(target=launch)
    launcher.start()
    assert train.begun.wait(60)
    os.kill(launcher.pid, signal.SIGKILL)
    launcher.join()
    train.go_on.set()
    deadline = time.monotonic() + 30
    while True:
        try:
            os.close(lock_folder(tmp_path))
            break
        except BlockingIOError:
            assert time.monotonic() < deadline
            time.sleep(0.1)
    assert not list(tmp_path.glob("*.pth"))  # its only iteration was not saved


# What a run logs --------------------------------------------------------------------------------


def test_first_lines_come_early(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Iteration 1, then 30 s after a line; mmengine logs every ``interval`` and each pass, of 2."""
    seconds = iter([100.0, 110.0, 131.0, 140.0, 141.0])
    monkeypatch.setattr(checkpointing, "monotonic", seconds.__next__)
    write_images(tmp_path)
    cfg = tiny_config(tmp_path, train_cfg=dict(max_iters=5, val_interval=9))
    cfg.default_hooks.logger.interval = 5
    runner = ZeroShotRunner.from_cfg(cfg)
    lines: list[str] = []
    monkeypatch.setattr(runner.logger, "info", lambda text, *_: lines.append(str(text)))
    runner.train()
    logged = [re.findall(r"Iter\(train\) \[(\d)/5\]", line) for line in lines]
    assert [found[0] for found in logged if found] == ["1", "2", "3", "5"]


def test_what_a_checkpoint_cannot_hold_is_left_out(tmp_path: Path) -> None:
    runner = toy_runner(tmp_path, [1])
    runner.message_hub.update_info("of_a_hook", tmp_path)
    runner.message_hub.update_info("counted", 3)
    runner.train()
    info = read_checkpoint(tmp_path / "iter_1.pth")["message_hub"]["runtime_info"]
    assert info["counted"] == 3 and "of_a_hook" not in info
