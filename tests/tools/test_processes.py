"""Runs of OTSeg's components that are killed and resumed, or spread over several processes."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

import pytest
from mmengine.hooks import Hook
from mmseg.registry import HOOKS

from mmseg_otseg.engine import read_checkpoint
from tests.helpers.otseg_run import otseg_config
from tests.helpers.run_tools import last_metrics, run_processes, run_tool, start_tool
from tests.helpers.tiny_run import write_images


@HOOKS.register_module()
class KilledHook(Hook):
    """Ends the process without warning in its sixth iteration."""

    def after_train_iter(self, runner: Any, *args: Any, **kwargs: Any) -> None:
        if runner.iter == 5:
            os.kill(os.getpid(), signal.SIGKILL)


def difference(first: Path, second: Path) -> float:
    """Largest difference of two checkpoints' weights."""
    one, other = (read_checkpoint(file)["state_dict"] for file in (first, second))
    assert one.keys() == other.keys()
    return max(float((one[name].double() - other[name].double()).abs().max()) for name in one)


def exit_of(name: str, *arguments: object) -> int | None:
    """The exit code of a tool in a process of its own."""
    process = start_tool(name, *arguments)
    process.join(120)
    return process.exitcode


@pytest.mark.parametrize(("workers", "setting"), [(0, "inductive"), (2, "transductive")])
def test_a_killed_run_resumes_as_if_it_had_never_stopped(
    workers: int, setting: str, tmp_path: Path
) -> None:
    write_images(tmp_path, number=6)
    cfg = otseg_config(
        tmp_path,
        train_cfg=dict(max_iters=8, val_interval=4),
        default_hooks=dict(checkpoint=dict(interval=4)),
        # A rate at which one wrong dropout mask or one wrong flip shows in the weights.
        param_scheduler=dict(warmup_iters=1),
        optim_wrapper=dict(optimizer=dict(lr=1e-3)),
        train_dataloader=dict(num_workers=workers, dataset=dict(setting=setting)),
    )
    if setting == "transductive":  # self-training starts before the checkpoint that is resumed
        cfg.default_hooks.self_training = dict(type="SelfTrainingHook", begin=3)
    cfg.dump(tmp_path / "whole.py")
    cfg.custom_hooks.append(dict(type="KilledHook"))
    cfg.dump(tmp_path / "killed.py")
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    assert exit_of("train", tmp_path / "whole.py", "--work-dir", whole) == 0

    assert exit_of("train", tmp_path / "killed.py", "--work-dir", killed) == -signal.SIGKILL
    assert (killed / "iter_4.pth").is_file()
    assert not (killed / "iter_8.pth").exists()

    assert exit_of("train", tmp_path / "whole.py", "--work-dir", killed, "--resume") == 0
    assert difference(whole / "iter_8.pth", killed / "iter_8.pth") == 0
    assert difference(whole / "iter_8.pth", whole / "iter_4.pth") > 1e-3


def test_two_processes_train_as_one_with_their_batches_together(tmp_path: Path) -> None:
    write_images(tmp_path, number=6)
    otseg_config(
        tmp_path,
        dropout=False,
        train_cfg=dict(max_iters=3, val_interval=3),
        param_scheduler=dict(warmup_iters=1),
        optim_wrapper=dict(optimizer=dict(lr=1e-3)),
    ).dump(tmp_path / "tiny.py")

    def arguments(name: str, batch_size: int) -> list[object]:
        options = ["--cfg-options", f"train_dataloader.batch_size={batch_size}"]
        return [tmp_path / "tiny.py", "--work-dir", tmp_path / name, *options]

    run_tool("train", *arguments("one", 4))
    run_processes(2, "train", *arguments("two", 2))
    assert difference(tmp_path / "one" / "iter_3.pth", tmp_path / "two" / "iter_3.pth") < 1e-5

    run_tool("train", *arguments("less", 2))  # so it does make a difference what is in a batch
    assert difference(tmp_path / "one" / "iter_3.pth", tmp_path / "less" / "iter_3.pth") > 1e-3

    checkpoint = tmp_path / "two" / "iter_3.pth"
    run_processes(2, "test", tmp_path / "tiny.py", checkpoint, "--work-dir", tmp_path / "tested")
    validated, tested = last_metrics(tmp_path / "two"), last_metrics(tmp_path / "tested")
    for name in ("pAcc", "mIoU_S", "mIoU_U", "hIoU"):
        assert tested[name] == validated[name]
