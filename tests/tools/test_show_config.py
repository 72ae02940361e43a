"""A printed config is that of the run, and needs nothing of this project's running code."""

from __future__ import annotations

import runpy
import sys
from pathlib import Path

import mmseg
import pytest
from mmengine.config import Config
from mmseg_otseg_cli.config import load_config
from mmseg_otseg_cli.options import config_parser

from mmseg_otseg.engine import resolve
from tests.helpers.folder_data import write_folders
from tests.helpers.run_tools import run_tool
from tests.helpers.small_configs import small

STOCK = Path(mmseg.__file__).parent / ".mim" / "tools" / "analysis_tools"


@pytest.fixture
def printed(tmp_path: Path, capsys: pytest.CaptureFixture) -> Path:
    """What the tool prints of a config for data in folders."""
    write_folders(tmp_path / "data" / "own")
    small("own_data/otseg_512.py", tmp_path).dump(tmp_path / "small.py")
    capsys.readouterr()
    run_tool("show_config", tmp_path / "small.py", "--cfg-options", "compile=True")
    (tmp_path / "printed.py").write_text(capsys.readouterr().out)
    return tmp_path / "printed.py"


def test_it_is_the_config_of_the_run(printed: Path, tmp_path: Path) -> None:
    args = config_parser("").parse_args([f"{tmp_path}/small.py", "--cfg-options", "compile=True"])
    assert Config.fromfile(printed).to_dict() == resolve(load_config(args)).to_dict()


@pytest.mark.skipif(not STOCK.is_dir(), reason="mmsegmentation was installed without its tools")
@pytest.mark.parametrize(
    ("tool", "arguments", "written"),
    [
        ("browse_dataset", "--not-show --output-dir browsed", "browsed/train_0.jpg"),
        ("benchmark", "untrained --work-dir .", "fps_*.json"),
        ("confusion_matrix", "data/own/labels/val .", "confusion_matrix.png"),
    ],
)
def test_mmsegs_tools_work_on_it(
    tool: str,
    arguments: str,
    written: str,
    printed: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Those that build data and models without a run."""
    if tool == "browse_dataset" and mmseg.__version__ == "1.2.2":
        pytest.skip("mmsegmentation 1.2.2 cannot draw the arrays that this tool of its own makes")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", [tool, "printed.py", *arguments.split()])
    runpy.run_path(str(STOCK / f"{tool}.py"), run_name="__main__")
    assert list(tmp_path.glob(written))
