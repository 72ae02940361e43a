"""Every config has a work folder of its own, whatever starts it."""

from __future__ import annotations

import runpy
import sys
from collections.abc import Callable
from pathlib import Path
from unittest.mock import MagicMock

import mmseg
import pytest
from mmengine.config import Config
from mmengine.runner import Runner
from mmseg.registry import RUNNERS

from mmseg_otseg.engine.run_folder import default_work_dir
from tests.helpers.paths import ROOT
from tests.helpers.run_tools import run_tool

STOCK = Path(mmseg.__file__).parent / ".mim" / "tools"


@pytest.fixture
def folder_of(monkeypatch: pytest.MonkeyPatch) -> Callable[..., str]:
    """Where a launcher would let a config write; nothing is built."""
    folders: list[str] = []

    def from_cfg(cls: type, cfg: Config) -> MagicMock:
        folders.append(str(Path(cfg.work_dir)))
        return MagicMock()

    monkeypatch.setattr(Runner, "from_cfg", classmethod(from_cfg))

    def start(tool: str | Config, *arguments: object) -> str:
        if isinstance(tool, Config):
            RUNNERS.build(tool)
        elif tool == "ours":
            run_tool("train", *arguments)
        else:
            monkeypatch.setattr(sys, "argv", [tool, *map(str, arguments)])
            runpy.run_path(str(STOCK / tool), run_name="__main__")
        return folders.pop()

    return start


def test_no_two_configs_share_a_folder(folder_of: Callable[..., str]) -> None:
    files = [file for file in (ROOT / "configs").glob("*/*.py") if file.parent.name != "_base_"]
    by_tool: dict[str, set[str]] = {"ours": set(), "mmseg": set()}
    for file in files:
        cfg = Config.fromfile(file)
        assert "work_dir" not in cfg, f"{file}: configs that derive from it would share that folder"
        by_tool["ours"].add(default_work_dir(file))
        cfg.work_dir = f"./work_dirs/{file.stem}"  # as mmseg's tools call it
        by_tool["mmseg"].add(folder_of(cfg))
    assert by_tool["ours"] == by_tool["mmseg"] and len(by_tool["ours"]) == len(files) > 50


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
