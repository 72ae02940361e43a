from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
from mmseg_otseg_tools.launch import first_failure, group

from mmseg_otseg.engine import read_checkpoint
from tests.helpers.paths import ROOT
from tests.helpers.run_tools import last_metrics
from tests.helpers.tiny_run import tiny_config, write_images


def run_script(name: str, *arguments: object, **environment: str) -> subprocess.CompletedProcess:
    command = [str(ROOT / "tools" / name), *map(str, arguments)]
    return subprocess.run(
        command, env={**os.environ, **environment}, capture_output=True, text=True, timeout=300
    )


@pytest.fixture
def recorder(tmp_path: Path) -> str:
    """A stand-in for Python that prints its arguments and exits with 7."""
    script = tmp_path / "python with a space"
    script.write_text('#!/bin/sh\nprintf "%s\\n" "$@"\nexit 7\n')
    script.chmod(0o755)
    return str(script)


def test_scripts_hand_their_arguments_on(recorder: str) -> None:
    done = run_script("dist_train.sh", "a b.py", 2, "--amp", "--work-dir", "c d", PYTHON=recorder)
    assert done.returncode == 7
    launch = str(ROOT / "tools" / "launch.py")
    arguments = ["a b.py", "--amp", "--work-dir", "c d"]
    assert done.stdout.splitlines() == [launch, "2", "train.py", *arguments]
    done = run_script("dist_test.sh", "a.py", "b.pth", 8, "--tta", PYTHON=recorder)
    assert done.returncode == 7
    assert done.stdout.splitlines() == [launch, "8", "test.py", "a.py", "b.pth", "--tta"]


def test_one_machine_takes_a_free_port_and_several_meet_where_they_are_told() -> None:
    assert group({}) == ["--standalone"]
    several = dict(NNODES="2", NODE_RANK="1", MASTER_ADDR="10.0.0.1", PORT="1234")
    assert group(several) == [
        *["--nnodes", "2", "--node_rank", "1"],
        *["--master_addr", "10.0.0.1", "--master_port", "1234"],
    ]


@pytest.mark.parametrize("name", ["dist_train.sh", "dist_test.sh"])
def test_too_few_arguments_say_how_to_call(name: str, recorder: str) -> None:
    done = run_script(name, "a.py", PYTHON=recorder)
    assert done.returncode == 2
    assert done.stderr.startswith("usage: ")


@pytest.mark.parametrize(
    ("arguments", "lines"), [(["voc_512.py"], 1), (["none.py"], 1), (["voc_512.py", "--bad"], 8)]
)
def test_mistakes_are_told_once_and_before_any_process_starts(
    arguments: list[str], lines: int, tmp_path: Path
) -> None:
    start = time.monotonic()
    config, *options = arguments
    script = str(ROOT / "tools" / "dist_train.sh")
    done = subprocess.run(
        [script, str(ROOT / "configs" / "otseg" / config), "4", *options],
        cwd=tmp_path,
        env={**os.environ, "PYTHON": sys.executable},
        capture_output=True,
        text=True,
    )
    assert done.returncode and not done.stdout
    assert len(done.stderr.splitlines()) <= lines
    assert done.stderr.splitlines()[-1].startswith("train.py: error: ")
    assert time.monotonic() - start < 20


def test_clip_weights_are_fetched_before_any_process_starts(tmp_path: Path) -> None:
    write_images(tmp_path)
    cfg = tiny_config(tmp_path)
    cfg.model.clip = dict(model="ViT-B-16", pretrained="openai")
    cfg.dump(tmp_path / "tiny.py")
    nowhere = dict(HF_ENDPOINT="http://127.0.0.1:9", HF_HUB_CACHE=str(tmp_path / "cache"))
    environment = dict(nowhere, PYTHON=sys.executable, TORCHELASTIC_ERROR_FILE="")
    done = run_script("dist_train.sh", tmp_path / "tiny.py", 4, **environment)
    assert done.returncode and not (tmp_path / "run").exists()
    lines = done.stderr.splitlines()
    assert len(lines) <= 20
    assert any("CLIP_WEIGHTS" in line and line.startswith("train.py: error: ") for line in lines)


FAILING = f"""
import os, sys, time
sys.path.insert(0, {str(ROOT)!r})
from mmseg_otseg_tools.cli import run

def main():
    if os.environ["RANK"] == "0":
        time.sleep(0.5 if "late" in sys.argv else 60)
        raise RuntimeError("the other process is gone")
    if "killed" in sys.argv:
        os.kill(os.getpid(), 9)
    raise OSError("the disk is full")

run(main)
"""


@pytest.mark.parametrize(("how", "told"), [("", "the disk is full"), ("killed", "SIGKILL")])
def test_an_error_of_a_process_is_told_once(how: str, told: str, tmp_path: Path) -> None:
    (tmp_path / "failing.py").write_text(FAILING)
    script = f"""
import sys
sys.path.insert(0, {str(ROOT)!r})
from mmseg_otseg_tools.launch import start
start(2, {str(tmp_path / "failing.py")!r}, [{how!r}])
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.returncode == (1 if not how else 128 + 9)
    assert len(done.stderr.splitlines()) == 1 and told in done.stderr


def failure(seconds: float, message: str | None = None, **told: object) -> SimpleNamespace:
    data = {"message": message, "time": seconds, **told} if message else {"message": "<NONE>"}
    return SimpleNamespace(error_file_data=data, timestamp=int(seconds))


def test_the_first_failure_is_the_one_to_fix_or_the_earliest() -> None:
    bug, follows = failure(5.2, "bug"), failure(5.7, "connection closed")
    fixable, silent = failure(5.6, "no file", fixable=True), failure(4.0)
    assert first_failure([follows, bug]) is bug
    assert first_failure([follows, bug, fixable, silent]) is fixable
    assert first_failure([bug, silent]) is silent


def test_trains_in_two_processes_without_a_gpu(tmp_path: Path) -> None:
    write_images(tmp_path)
    tiny_config(tmp_path, train_cfg=dict(max_iters=1)).dump(tmp_path / "tiny.py")
    no_gpu = dict(PYTHON=sys.executable, CUDA_VISIBLE_DEVICES="", OMP_NUM_THREADS="1")
    done = run_script("dist_train.sh", tmp_path / "tiny.py", 2, **no_gpu)
    assert done.returncode == 0, done.stderr[-2000:]
    assert read_checkpoint(tmp_path / "run" / "iter_1.pth")["meta"]["iter"] == 1
    assert "mIoU" in last_metrics(tmp_path / "run")


@pytest.mark.parametrize("arguments", [("4", "config.py"), ("config.py", "0")])
def test_swapped_arguments_say_how_to_call(arguments: tuple[str, str]) -> None:
    script = ROOT / "tools" / "dist_train.sh"
    environment = {**os.environ, "PYTHON": sys.executable}
    done = subprocess.run(
        ["bash", script, *arguments], env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    assert arguments[1] in done.stderr and "dist_train.sh CONFIG PROCESSES" in done.stderr
