from __future__ import annotations

import multiprocessing
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from mmengine.hooks import Hook

from mmseg_otseg.engine.run_folder import lock_folder
from tests.engine.toy_run import toy_runner

FORK = multiprocessing.get_context("fork")
LOCK = dict(type="WorkDirLockHook")


class Pause(Hook):
    """Says that training has begun, and waits in its first iteration."""

    def __init__(self, begun: Any, go_on: Any) -> None:
        self.begun, self.go_on = begun, go_on

    def before_train_iter(self, *_: Any, **__: Any) -> None:
        self.begun.set()
        assert self.go_on.wait(60)


@pytest.fixture
def train(tmp_path: Path) -> Callable[[], None]:
    """Trains in ``tmp_path`` until ``train.go_on`` is set."""

    def train() -> None:
        torch.set_num_threads(1)  # threads of the other process are not in its copy
        toy_runner(tmp_path, [1, 2], [LOCK, Pause(train.begun, train.go_on)]).train()

    train.begun, train.go_on = FORK.Event(), FORK.Event()
    return train


def test_a_second_training_is_refused_and_told_by_whom(
    train: Callable[[], None], tmp_path: Path
) -> None:
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


def test_a_worker_ends_with_its_launcher(train: Callable[[], None], tmp_path: Path) -> None:
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
    deadline = time.monotonic() + 30
    while True:
        try:
            os.close(lock_folder(tmp_path))
            break
        except BlockingIOError:
            assert time.monotonic() < deadline
            time.sleep(0.1)
