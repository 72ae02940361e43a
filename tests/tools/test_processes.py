"""Runs in several processes."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from mmseg_otseg.engine import read_checkpoint
from tests.helpers.folder_data import label_files
from tests.helpers.paths import ROOT
from tests.helpers.run_tools import last_metrics, run_processes, run_tool
from tests.helpers.tiny_run import tiny_config, write_images


def run_script(
    name: str, *arguments: object, cwd: Path | None = None, **environment: str
) -> subprocess.CompletedProcess:
    return subprocess.run(
        ["bash", str(ROOT / "tools" / name), *map(str, arguments)],
        env={**os.environ, "PYTHON": sys.executable, "CUDA_VISIBLE_DEVICES": "", **environment},
        cwd=cwd,
        capture_output=True,
        text=True,
        timeout=300,
    )


@pytest.fixture
def recorder(tmp_path: Path) -> str:
    """A stand-in for Python that prints its arguments."""
    script = tmp_path / "python with a space"
    script.write_text('#!/bin/sh\nprintf "%s|" "$@"\necho\n')
    script.chmod(0o755)
    return str(script)


def test_the_scripts_check_first_and_hand_their_arguments_on(recorder: str) -> None:
    done = run_script("dist_train.sh", "a b.py", 2, "--work-dir", "c d", PYTHON=recorder)
    check, launch = done.stdout.splitlines()
    assert check.endswith("/train.py|a b.py|--work-dir|c d|--check-only|")
    assert launch.startswith("-m|torch.distributed.run|--standalone|--nproc_per_node|2|")
    assert launch.endswith("/train.py|a b.py|--work-dir|c d|--launcher|pytorch|")
    several = dict(NNODES="2", NODE_RANK="1", MASTER_ADDR="10.0.0.1", PORT="1234")
    done = run_script("dist_test.sh", "a.py", "b.pth", 8, "--tta", PYTHON=recorder, **several)
    launch = done.stdout.splitlines()[1]
    meet = "--nnodes|2|--node_rank|1|--master_addr|10.0.0.1|--master_port|1234|--nproc_per_node|8|"
    assert meet in launch and launch.endswith("/test.py|a.py|b.pth|--tta|--launcher|pytorch|")


def test_missing_data_are_reported_once(tmp_path: Path) -> None:
    done = run_script("dist_train.sh", "otseg/voc_512", 4, cwd=tmp_path)
    assert done.returncode and not done.stdout and len(done.stderr.splitlines()) == 1
    assert done.stderr.startswith("train.py: error: ")


def difference(first: Path, second: Path) -> float:
    """Largest difference of two checkpoints' weights."""
    one, other = (read_checkpoint(file)["state_dict"] for file in (first, second))
    assert one.keys() == other.keys()
    return max(float((one[name].double() - other[name].double()).abs().max()) for name in one)


def test_two_processes_train_as_one_with_their_batches_together(tmp_path: Path) -> None:
    write_images(tmp_path, number=6)
    for file in label_files(tmp_path, "train")[::2]:  # the loss counts the classes that occur
        Image.new("L", (32, 32), 0).save(file)
    tiny_config(
        tmp_path,
        dropout=False,
        train_cfg=dict(max_iters=3, val_interval=3),
        param_scheduler=dict(warmup_iters=1),
        optim_wrapper=dict(optimizer=dict(lr=1e-3)),
        model=dict(decode_head=dict(seen_bias=0.0)),  # predictions of all classes
    ).dump(tmp_path / "tiny.py")

    def arguments(name: str, batch_size: int) -> list[object]:
        options = ["--cfg-options", f"train_dataloader.batch_size={batch_size}"]
        return [tmp_path / "tiny.py", "--work-dir", tmp_path / name, *options]

    run_tool("train", *arguments("one", 4))
    done = run_script("dist_train.sh", tmp_path / "tiny.py", 2, *arguments("two", 2)[1:])
    assert done.returncode == 0 and "FutureWarning" not in done.stderr, done.stderr[-2000:]
    assert difference(tmp_path / "one" / "iter_3.pth", tmp_path / "two" / "iter_3.pth") < 1e-5

    run_tool("train", *arguments("less", 2))  # so it does make a difference what is in a batch
    assert difference(tmp_path / "one" / "iter_3.pth", tmp_path / "less" / "iter_3.pth") > 1e-3

    checkpoint = tmp_path / "two" / "iter_3.pth"
    run_processes(2, "test", tmp_path / "tiny.py", checkpoint, "--work-dir", tmp_path / "tested")
    validated, tested = last_metrics(tmp_path / "two"), last_metrics(tmp_path / "tested")
    for name in ("pAcc", "mIoU_S", "mIoU_U", "hIoU"):
        assert tested[name] == validated[name]
