"""Every config has a work folder of its own, and a run compiles what its config says."""

from __future__ import annotations

import os
import runpy
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from unittest.mock import MagicMock

import mmseg
import pytest
import torch
from mmengine.config import Config
from mmengine.runner import Runner
from torch._dynamo.testing import CompileCounterWithBackend

from mmseg_otseg.engine import ZeroShotRunner, process_group
from tests.helpers.paths import ROOT
from tests.helpers.run_tools import run_tool
from tests.helpers.small_configs import small

THREADS = Path("/proc/self/task")
STOCK = Path(mmseg.__file__).parent / ".mim" / "tools"

COUNTER = CompileCounterWithBackend("eager")
torch._dynamo.register_backend(COUNTER, name="counter")


@pytest.fixture
def folder_of(monkeypatch: pytest.MonkeyPatch) -> Callable[..., str]:
    """Where a launcher would let a config write; nothing is built."""
    folders: list[str] = []

    def from_cfg(cls: type, cfg: Config) -> MagicMock:
        folders.append(str(Path(cfg.work_dir)))
        return MagicMock()

    monkeypatch.setattr(Runner, "from_cfg", classmethod(from_cfg))

    def start(tool: str, *arguments: object) -> str:
        if tool == "ours":
            run_tool("train", *arguments)
        else:
            monkeypatch.setattr(sys, "argv", [tool, *map(str, arguments)])
            runpy.run_path(str(STOCK / tool), run_name="__main__")
        return folders.pop()

    return start


@pytest.mark.parametrize("tool", ["ours", "train.py"])
def test_the_folder_of_a_config_and_of_a_derived_one(
    tool: str, folder_of: Callable[..., str], tmp_path: Path
) -> None:
    if tool != "ours" and not STOCK.is_dir():
        pytest.skip("mmsegmentation was installed without its tools")
    config = ROOT / "configs" / "shapes" / "zegot.py"  # needs no data
    derived = tmp_path / "zegot.py"
    derived.write_text(f'_base_ = "{config}"\n')
    assert folder_of(tool, config) == "work_dirs/shapes/zegot"
    assert folder_of(tool, derived) == f"work_dirs/{tmp_path.name}/zegot"
    assert folder_of(tool, derived, "--work-dir", "here") == "here"
    assert folder_of(tool, derived, "--cfg-options", "work_dir=there") == "there"


@pytest.mark.filterwarnings("ignore:Dynamo detected a call to a `functools.lru_cache`")
def test_a_run_compiles_once(data_folder: Path, tmp_path: Path) -> None:
    weights: list[dict] = []
    for options in ({}, dict(compile=dict(backend="counter", fullgraph=True))):
        torch._dynamo.reset()
        cfg = small("otseg/voc_512.py", data_folder, tmp_path, iters=4)
        cfg.model.backbone.update(drop_path_rate=0.0)
        cfg.model.backbone.visual_prompts.dropout = cfg.model.decode_head.dropout = 0.0
        cfg.merge_from_dict(options)
        cfg.experiment_name = f"compiled_{len(weights)}"
        runner = ZeroShotRunner.from_cfg(cfg)
        runner.train()
        weights.append(runner.model.state_dict())
    assert COUNTER.frame_count == 1
    torch.testing.assert_close(*weights, rtol=1e-4, atol=1e-6)


@pytest.mark.skipif(not THREADS.is_dir(), reason="only Linux lists the threads of C++ code")
def test_no_thread_of_a_process_group_is_left_to_crash_at_exit(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    place = dict(RANK="0", WORLD_SIZE="1", MASTER_ADDR="127.0.0.1", MASTER_PORT="0")
    for name, value in place.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr("mmseg_otseg.engine.runner.get_device", lambda: "cpu")
    before = set(os.listdir(THREADS))
    with process_group(Config(dict(launcher="pytorch"))):
        model = torch.nn.parallel.DistributedDataParallel(torch.nn.Linear(1, 1))
        runner = SimpleNamespace(model=model)
        runner.itself = runner  # mmengine's runner is in reference cycles too
        del runner, model
        assert set(os.listdir(THREADS)) - before
    assert not set(os.listdir(THREADS)) - before
