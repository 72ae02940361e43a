from __future__ import annotations

import importlib
import re
import runpy
import subprocess
import sys
import tarfile
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest

import mmseg_otseg
from tests.helpers.paths import ROOT


def test_without_mmcv_the_import_says_what_to_install() -> None:
    with patch.dict(sys.modules, {"mmcv": None}):
        del sys.modules["mmseg_otseg"]
        with pytest.raises(ImportError) as caught:
            importlib.import_module("mmseg_otseg")
    message = str(caught.value)
    assert "mmcv cannot be found" in message
    assert "mmseg_otseg[onedl]" in message and "mmseg_otseg[openmmlab]" in message


@pytest.fixture(scope="module")
def options() -> dict[str, Any]:
    """What setup.py hands to setuptools."""
    pytest.importorskip("setuptools")
    with patch("setuptools.setup") as setup:
        runpy.run_path(str(ROOT / "setup.py"))
    return dict(setup.call_args.kwargs)


def names(requirements: list[str]) -> set[str]:
    return {re.split(r"[<>=\[; ]", requirement)[0] for requirement in requirements}


def test_the_requirements_leave_the_choice_of_the_stack(options: dict[str, Any]) -> None:
    extras = options["extras_require"]
    stack = {"mmengine", "mmcv", "mmsegmentation"}
    assert names(extras["onedl"]) == {"torch", *(f"onedl-{name}" for name in stack)}
    assert names(extras["openmmlab"]) == stack
    for others in (options["install_requires"], extras["test"]):
        assert not any(name.startswith(("mm", "onedl")) for name in names(others))
    assert options["version"] == mmseg_otseg.__version__


def test_the_source_distribution_has_every_file(tmp_path: Path) -> None:
    listing = ["git", "ls-files", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.run(listing, cwd=ROOT, capture_output=True, text=True)
    if listed.returncode:
        pytest.skip("not a checkout")
    command = ["setup.py", "--quiet", "egg_info", f"--egg-base={tmp_path}"]
    command += ["sdist", f"--dist-dir={tmp_path}"]
    subprocess.run([sys.executable, *command], cwd=ROOT, check=True)
    with tarfile.open(next(tmp_path.glob("*.tar.gz"))) as archive:
        inside = {name.partition("/")[2] for name in archive.getnames()}
    files = {name for name in listed.stdout.splitlines() if (ROOT / name).exists()}
    missing = {name for name in files - inside if not name.startswith(".")}
    assert files and not missing


def test_an_installed_package_brings_configs_and_tools(tmp_path: Path) -> None:
    """The configs and scripts where mim looks for them, and the commands wherever one is."""
    command = [sys.executable, "setup.py", "--quiet", "build", f"--build-base={tmp_path / 'base'}"]
    subprocess.run([*command, "--build-lib", str(tmp_path)], cwd=ROOT, check=True)
    for folder, copy, pattern in (
        ("configs", "mmseg_otseg/configs", "**/*.py"),
        ("configs", "mmseg_otseg/configs", "**/*.safetensors"),
        ("mmseg_otseg", "mmseg_otseg", "**/*.py"),
        ("tools/mmseg_otseg_cli", "mmseg_otseg_cli", "*.py"),
        ("tools", "mmseg_otseg/tools", "*.py"),
        ("tools", "mmseg_otseg/tools", "dist*.sh"),
    ):
        files = {file.relative_to(ROOT / folder) for file in (ROOT / folder).glob(pattern)}
        assert files and all((tmp_path / copy / file).is_file() for file in files)
    script = "from mmseg_otseg_cli.config import find_config; print(find_config('otseg/voc_512'))"
    done = subprocess.run(
        [sys.executable, "-S", "-c", script], cwd=tmp_path, capture_output=True, text=True
    )
    assert Path(done.stdout.strip()).samefile(tmp_path / "mmseg_otseg/configs/otseg/voc_512.py")
