"""A run that is killed, at whatever moment, and resumed leaves what it leaves undisturbed."""

from __future__ import annotations

import functools
import json
import os
import random
import signal
import sys
import time
from collections.abc import Callable
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch

from mmseg_otseg.engine import read_checkpoint
from tests.helpers.run_tools import start_processes, start_tool
from tests.helpers.tiny_run import tiny_config, write_images

ITERS = 10
SEEDS = range(12)
IN_EVERY_TEST = (0, 3)  # one process, killed once; two processes, killed twice


class Setting(NamedTuple):
    """How often a run saves and validates, and in how many processes it runs."""

    interval: int
    val_interval: int
    keep: int
    processes: int


SETTINGS = [Setting(2, 2, 1, 1), Setting(4, 2, 2, 1), Setting(2, 4, 1, 1), Setting(2, 2, 1, 2)]


class Tripwire:
    """Counts what a process does to the files below a folder, and kills it at one such moment.

    Args:
        folder: The folder.
        moment: Which operation is not done any more, counted from 1; None for all of them.
        log: Where the number of operations is written, if any.
    """

    def __init__(self, folder: Path, moment: int | None = None, log: Path | None = None) -> None:
        self.folder, self.moment, self.log = str(folder), moment, log
        self.count = 0

    def __call__(self) -> None:
        sys.addaudithook(self.look)  # for good, so in a process of its own

    def look(self, event: str, args: tuple) -> None:
        if event not in ("open", "os.rename", "os.remove", "os.truncate", "os.mkdir"):
            return
        if not str(args[0]).startswith(self.folder):
            return
        self.count += 1
        if self.log is not None:
            self.log.write_text(str(self.count))
        if self.count == self.moment:
            os.kill(os.getpid(), signal.SIGKILL)


def start(setting: Setting, folder: Path, run: str, first: Callable | None) -> list[BaseProcess]:
    """Start or resume the training in ``folder / run``."""
    arguments = ["train", folder / f"{name_of(setting)}.py", "--work-dir", folder / run, "--resume"]
    if setting.processes > 1:
        return start_processes(setting.processes, *arguments, first=first)
    return [start_tool(*arguments, first=first)]


def end(processes: list[BaseProcess]) -> list[int | None]:
    """Wait for all processes; as with torchrun, the end of one by a signal is the end of all."""
    while any(process.is_alive() for process in processes):
        if any(process.exitcode for process in processes):
            for process in processes:
                process.kill()
        time.sleep(0.01)
    return [process.exitcode for process in processes]


def name_of(setting: Setting) -> str:
    return "_".join(map(str, setting))


def left_by(run: Path) -> dict[str, Any]:
    """What a run leaves: its files, what the checkpoints hold, and the validations' metrics."""
    files = sorted(file.name for file in run.iterdir() if file.is_file())
    left: dict[str, Any] = {"files": files, "last": (run / "last_checkpoint").read_text()[-10:]}
    for file in run.glob("*.pth"):
        saved = read_checkpoint(file)
        info = saved["message_hub"]["runtime_info"]
        left[file.name] = {
            **{key: saved.get(key) for key in ("state_dict", "optimizer", "param_schedulers")},
            **{
                key: info.get(key)
                for key in ("best_score", "best_file", "keep_ckpt_ids", "iter_validated")
            },
            "iter": saved["meta"]["iter"],
        }
    logs = [file.read_text() for file in run.glob("*/vis_data/scalars.json")]
    for line in sorted("\n".join(logs).split("\n")):
        if line.endswith("}") and "mIoU" in line:  # others are of training, or cut off by a kill
            entry = json.loads(line)
            metrics = {key: value for key, value in entry.items() if not key.endswith("time")}
            assert left.setdefault(f"validation {entry['step']}", metrics) == metrics
    return left


def same(one: Any, other: Any) -> bool:
    """Whether two trees of tensors and plain values are equal, to the last bit."""
    if isinstance(one, torch.Tensor):
        return torch.equal(one, other)
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(same(one[key], other[key]) for key in one)
    if isinstance(one, (list, tuple)):
        return len(one) == len(other) and all(map(same, one, other))
    return one == other


class Reference(NamedTuple):
    """A run that was never killed."""

    left: dict[str, Any]
    moments: int
    seconds: float


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("killed")
    write_images(folder, number=6)
    return folder


@pytest.fixture(scope="module")
def undisturbed(folder: Path) -> Callable[[Setting], Reference]:
    @functools.cache
    def undisturbed(setting: Setting) -> Reference:
        checkpoint = dict(interval=setting.interval, max_keep_ckpts=setting.keep, save_best="mIoU")
        tiny_config(
            folder,
            train_cfg=dict(max_iters=ITERS, val_interval=setting.val_interval),
            default_hooks=dict(checkpoint=checkpoint),
            # A rate at which a wrong dropout mask shows, and the best is not always the last.
            param_scheduler=dict(warmup_iters=1),
            optim_wrapper=dict(optimizer=dict(lr=6e-2)),
        ).dump(folder / f"{name_of(setting)}.py")
        run, log = folder / f"{name_of(setting)}_whole", folder / "moments"
        begin = time.monotonic()
        tripwire = Tripwire(run, log=log)
        assert not any(end(start(setting, folder, run.name, tripwire)))
        return Reference(left_by(run), int(log.read_text()), time.monotonic() - begin)

    return undisturbed


def kill(setting: Setting, folder: Path, run: str, moment: int | float) -> bool:
    """Start or resume a run and kill it; whether it was not over before.

    Args:
        setting: Of the run.
        folder: Where the config is.
        run: The work folder in it.
        moment: Which operation on files is not done (int), or after how many seconds (float).
    """
    if isinstance(moment, int):
        return any(end(start(setting, folder, run, Tripwire(folder / run, moment))))
    processes = start(setting, folder, run, None)
    time.sleep(moment)
    random.choice(processes).kill()
    return any(end(processes))


@pytest.mark.parametrize(
    "seed",
    [pytest.param(seed, marks=[] if seed in IN_EVERY_TEST else pytest.mark.slow) for seed in SEEDS],
)
def test_a_killed_run_leaves_what_it_leaves_undisturbed(
    seed: int, folder: Path, undisturbed: Callable[[Setting], Reference]
) -> None:
    rng = random.Random(seed)
    setting = SETTINGS[seed % len(SETTINGS)]
    reference = undisturbed(setting)
    run = f"{name_of(setting)}_killed_{seed}"
    moment: int | float = rng.randrange(1, reference.moments + 1)
    if seed % 3 == 2:
        moment = rng.uniform(0.3, 1.0) * reference.seconds
    killed = kill(setting, folder, run, moment)
    assert killed or isinstance(moment, float)
    if seed % 2:  # killed again, soon after it went on
        kill(setting, folder, run, rng.randrange(1, 20))
    assert not any(end(start(setting, folder, run, None)))
    left = left_by(folder / run)
    assert left.keys() == reference.left.keys()
    assert [key for key, value in reference.left.items() if not same(value, left[key])] == []
