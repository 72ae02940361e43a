from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from mmseg_otseg.engine import read_checkpoint
from tests.tiny_run import ROOT, last_metrics, tiny_config, write_pictures


def run_script(name: str, *arguments: object, **environment: str) -> subprocess.CompletedProcess:
    command = [str(ROOT / "tools" / name), *map(str, arguments)]
    kept = {key: value for key, value in os.environ.items() if key not in ("PORT", "NNODES")}
    return subprocess.run(
        command, env={**kept, **environment}, capture_output=True, text=True, timeout=300
    )


@pytest.fixture
def recorder(tmp_path: Path) -> str:
    """A stand-in for Python that prints its arguments and exits with 7."""
    script = tmp_path / "python with a space"
    script.write_text('#!/bin/sh\nprintf "%s\\n" "$@"\nexit 7\n')
    script.chmod(0o755)
    return str(script)


def test_one_machine_takes_a_free_port(recorder: str) -> None:
    done = run_script("dist_train.sh", "a b.py", 2, "--amp", "--work-dir", "c d", PYTHON=recorder)
    assert done.returncode == 7
    assert done.stdout.splitlines() == [
        *["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"],
        str(ROOT / "tools" / "train.py"),
        *["a b.py", "--amp", "--work-dir", "c d", "--launcher", "pytorch"],
    ]


def test_several_machines_meet_where_they_are_told(recorder: str) -> None:
    group = dict(NNODES="2", NODE_RANK="1", MASTER_ADDR="10.0.0.1", PORT="1234")
    done = run_script("dist_test.sh", "a.py", "b.pth", 8, "--tta", PYTHON=recorder, **group)
    assert done.returncode == 7
    assert done.stdout.splitlines() == [
        *["-m", "torch.distributed.run", "--nnodes", "2", "--node_rank", "1"],
        *["--master_addr", "10.0.0.1", "--master_port", "1234", "--nproc_per_node", "8"],
        str(ROOT / "tools" / "test.py"),
        *["a.py", "b.pth", "--tta", "--launcher", "pytorch"],
    ]


@pytest.mark.parametrize("name", ["dist_train.sh", "dist_test.sh"])
def test_too_few_arguments_say_how_to_call(name: str, recorder: str) -> None:
    done = run_script(name, "a.py", PYTHON=recorder)
    assert done.returncode == 2
    assert done.stderr.startswith("usage: ")


def test_trains_in_two_processes_without_a_gpu(tmp_path: Path) -> None:
    write_pictures(tmp_path)
    tiny_config(tmp_path, train_cfg=dict(max_iters=1)).dump(tmp_path / "tiny.py")
    no_gpu = dict(PYTHON=sys.executable, CUDA_VISIBLE_DEVICES="", OMP_NUM_THREADS="1")
    done = run_script("dist_train.sh", tmp_path / "tiny.py", 2, **no_gpu)
    assert done.returncode == 0, done.stderr[-2000:]
    assert read_checkpoint(tmp_path / "run" / "iter_1.pth")["meta"]["iter"] == 1
    assert "mIoU" in last_metrics(tmp_path / "run")
