from __future__ import annotations

import multiprocessing
import os
import signal
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from mmengine.hooks import Hook

from mmseg_otseg.engine.run_folder import lock_folder
from tests.helpers.toy_run import toy_runner

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


@pytest.fixture
def train(tmp_path: Path) -> Training:
    return Training(tmp_path)


def test_a_second_training_is_refused_and_told_by_whom(train: Training, tmp_path: Path) -> None:
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
    os.close(lock_folder(tmp_path))


def test_a_worker_ends_with_its_launcher(train: Training, tmp_path: Path) -> None:
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
