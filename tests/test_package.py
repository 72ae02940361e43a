from __future__ import annotations

import importlib
import re
import runpy
import subprocess
import sys
from pathlib import Path
from unittest.mock import patch

import pytest

import mmseg_otseg
from tests.tiny_run import ROOT


@pytest.mark.parametrize("missing", ["mmengine", "mmcv", "mmseg"])
def test_without_an_mm_stack_the_import_says_what_to_install(missing: str) -> None:
    with patch.dict(sys.modules, {missing: None}):
        del sys.modules["mmseg_otseg"]
        with pytest.raises(ImportError) as caught:
            importlib.import_module("mmseg_otseg")
    message = str(caught.value)
    assert f"{missing} cannot be found" in message
    assert 'pip install "mmseg_otseg[onedl]"' in message
    assert 'pip install "mmseg_otseg[openmmlab]"' in message


def test_the_requirements_leave_the_choice_of_the_stack() -> None:
    with patch("setuptools.setup") as setup:
        runpy.run_path(str(ROOT / "setup.py"))
    options = setup.call_args.kwargs

    def names(requirements: list[str]) -> set[str]:
        return {re.split(r"[<>=\[; ]", requirement)[0] for requirement in requirements}

    stacks = {name: names(options["extras_require"][name]) for name in ("onedl", "openmmlab")}
    assert stacks["onedl"] == {"onedl-mmengine", "onedl-mmcv", "onedl-mmsegmentation"}
    assert stacks["openmmlab"] == {"mmengine", "mmcv", "mmsegmentation"}
    for others in (options["install_requires"], options["extras_require"]["test"]):
        assert not any("mm" in name for name in names(others))
    assert options["version"] == mmseg_otseg.__version__


def test_an_installed_package_brings_the_configs(tmp_path: Path) -> None:
    pytest.importorskip("setuptools")
    command = [sys.executable, "setup.py", "--quiet", "build_py", "--build-lib", str(tmp_path)]
    subprocess.run(command, cwd=ROOT, check=True)
    package = tmp_path / "mmseg_otseg"
    for folder, copy in ((ROOT / "configs", "configs"), (ROOT / "mmseg_otseg", ".")):
        files = {file.relative_to(folder) for file in folder.rglob("*.py")}
        missing = {file for file in files if not (package / copy / file).is_file()}
        assert files and not missing
