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

# In every test run one process, killed once, and two processes, killed twice.
SEEDS = [0, 3, *(pytest.param(s, marks=pytest.mark.slow) for s in range(12) if s not in (0, 3))]
HUB = ("best_score", "best_file", "keep_ckpt_ids", "iter_validated")


class Setting(NamedTuple):
    """How often a run saves and validates, what it keeps, its processes and data workers."""

    interval: int
    val_interval: int
    keep: int
    processes: int
    workers: int

    @property
    def name(self) -> str:
        return "_".join(map(str, self))


SETTINGS = [
    Setting(2, 2, 1, 1, 2),
    Setting(4, 2, 2, 1, 0),
    Setting(2, 4, 1, 1, 0),
    Setting(2, 2, 1, 2, 0),
]


class Reference(NamedTuple):
    """A run that was never killed."""

    left: dict[str, Any]
    moments: int
    seconds: float


def tripwire(folder: Path, moment: int | None = None, log: Path | None = None) -> None:
    """Kill this process instead of an operation on files below a folder.

    Args:
        folder: The folder.
        moment: Which operation, counted from 1; None for none.
        log: Where the number of operations is written, if any.
    """
    count = 0

    def look(event: str, args: tuple) -> None:
        nonlocal count
        if event not in ("open", "os.rename", "os.remove", "os.truncate", "os.mkdir"):
            return
        if str(args[0]).startswith(str(folder)):
            count += 1
            if log is not None:
                log.write_text(str(count))
            if count == moment:
                os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(look)  # for good, so in a process of its own


def start(setting: Setting, run: Path, first: Callable | None = None) -> list[BaseProcess]:
    """Start or resume the training in a folder."""
    config = run.parent / f"{setting.name}.py"
    arguments = ["train", config, "--work-dir", run, "--resume"]
    if setting.processes > 1:
        return start_processes(setting.processes, *arguments, first=first)
    return [start_tool(*arguments, first=first)]


def killed(processes: list[BaseProcess]) -> bool:
    """Whether one ended by a signal, which is the end of all, as with torchrun."""
    while any(process.is_alive() for process in processes):
        if any(process.exitcode for process in processes):
            for process in processes:
                process.kill()
        time.sleep(0.01)
    return any(process.exitcode for process in processes)


def left_by(run: Path) -> dict[str, Any]:
    """What a run leaves: its files, what the checkpoints hold, and the validations' metrics."""
    files = sorted(file.name for file in run.iterdir() if file.is_file())
    left: dict[str, Any] = {"files": files, "last": (run / "last_checkpoint").read_text()[-10:]}
    for file in run.glob("*.pth"):
        saved = read_checkpoint(file)
        info = saved["message_hub"]["runtime_info"]
        parts = [saved.get(key) for key in ("state_dict", "optimizer", "param_schedulers")]
        left[file.name] = [saved["meta"]["iter"], *parts, *map(info.get, HUB)]
    logs = [file.read_text() for file in run.glob("*/vis_data/scalars.json")]
    for line in sorted("\n".join(logs).split("\n")):
        if line.endswith("}") and "hIoU" in line:  # others are of training, or cut off by a kill
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


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("killed")
    write_images(folder, number=6)
    return folder


@pytest.fixture(scope="module")
def undisturbed(folder: Path) -> Callable[[Setting], Reference]:
    @functools.cache
    def undisturbed(setting: Setting) -> Reference:
        checkpoint = dict(interval=setting.interval, max_keep_ckpts=setting.keep, save_best="hIoU")
        self_training = dict(type="SelfTrainingHook", begin=3)  # before what is resumed, or after
        tiny_config(
            folder,
            train_cfg=dict(max_iters=10, val_interval=setting.val_interval),
            default_hooks=dict(checkpoint=checkpoint, self_training=self_training),
            # A rate and a bias at which the best is neither the first nor the last.
            param_scheduler=dict(warmup_iters=1),
            optim_wrapper=dict(optimizer=dict(lr=5e-3)),
            model=dict(decode_head=dict(seen_bias=0.0)),
            train_dataloader=dict(
                num_workers=setting.workers, dataset=dict(setting="transductive")
            ),
        ).dump(folder / f"{setting.name}.py")
        run, log = folder / f"{setting.name}_whole", folder / "moments"
        begin = time.monotonic()
        assert not killed(start(setting, run, functools.partial(tripwire, run, log=log)))
        return Reference(left_by(run), int(log.read_text()), time.monotonic() - begin)

    return undisturbed


@pytest.mark.parametrize("seed", SEEDS)
def test_a_killed_run_leaves_what_it_leaves_undisturbed(
    seed: int, folder: Path, undisturbed: Callable[[Setting], Reference]
) -> None:
    rng, setting = random.Random(seed), SETTINGS[seed % len(SETTINGS)]
    reference = undisturbed(setting)
    run = folder / f"{setting.name}_killed_{seed}"

    def kill_at(moment: int) -> bool:
        return killed(start(setting, run, functools.partial(tripwire, run, moment)))

    if seed % 3 == 2:  # at any time, instead of an operation on files
        processes = start(setting, run)
        time.sleep(rng.uniform(0.3, 1.0) * reference.seconds)
        rng.choice(processes).kill()
        killed(processes)
    else:
        assert kill_at(rng.randrange(1, reference.moments + 1))
    if seed % 2:  # killed again, soon after it went on
        kill_at(rng.randrange(1, 20))
    assert not killed(start(setting, run))
    left = left_by(run)
    assert left.keys() == reference.left.keys()
    assert [key for key, value in reference.left.items() if not same(value, left[key])] == []
