from __future__ import annotations

import ast
import importlib
import re
import runpy
import subprocess
import sys
import tarfile
from pathlib import Path
from unittest.mock import patch

import pytest

import mmseg_otseg
from tests.helpers.paths import ROOT


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
    assert stacks["onedl"] == {"onedl-mmengine", "onedl-mmcv", "onedl-mmsegmentation", "torch"}
    assert stacks["openmmlab"] == {"mmengine", "mmcv", "mmsegmentation"}
    for others in (options["install_requires"], options["extras_require"]["test"]):
        assert not any(name.startswith(("mm", "onedl")) for name in names(others))
    assert options["version"] == mmseg_otseg.__version__


def test_what_reads_files_has_an_upper_bound() -> None:
    with patch("setuptools.setup") as setup:
        runpy.run_path(str(ROOT / "setup.py"))
    options = setup.call_args.kwargs
    extras = options["extras_require"]
    wanted = [*options["install_requires"], *extras["onedl"], *extras["openmmlab"]]
    for name in ("mmengine", "mmcv", "mmsegmentation", "torch", "open_clip_torch", "numpy"):
        assert any(re.match(rf"(onedl-)?{name}\b.*<", requirement) for requirement in wanted)


#: Packages whose modules are called otherwise.
MODULES = {"pillow": "PIL", "open_clip_torch": "open_clip", "POT": "ot"}
# Triton comes with torch, on the platforms that have it; without it nothing here needs it.
BROUGHT_BY_A_STACK = {"mmengine", "mmcv", "mmseg", "triton"}


def imported_by(folder: str) -> set[str]:
    """The packages that the code of a folder imports, by the names of their modules."""
    found: set[str] = set()
    for file in (ROOT / folder).rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                found |= {name.name.split(".")[0] for name in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
                found.add(node.module.split(".")[0])
    return found - sys.stdlib_module_names - BROUGHT_BY_A_STACK


def test_what_is_imported_is_required() -> None:
    with patch("setuptools.setup") as setup:
        runpy.run_path(str(ROOT / "setup.py"))
    options = setup.call_args.kwargs

    def modules(requirements: list[str]) -> set[str]:
        found = {re.split(r"[<>=\[; ]", requirement)[0] for requirement in requirements}
        return {MODULES.get(name, name) for name in found}

    always = modules(options["install_requires"])
    extras = {name for extra in options["extras_require"].values() for name in modules(extra)}
    assert imported_by("mmseg_otseg") - {"mmseg_otseg"} <= always | extras
    assert imported_by("tools") - {"mmseg_otseg", "mmseg_otseg_tools"} <= always | extras


def test_the_source_distribution_has_every_file(tmp_path: Path) -> None:
    pytest.importorskip("setuptools")
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
    pytest.importorskip("setuptools")
    command = [sys.executable, "setup.py", "--quiet", "build_py", "--build-lib", str(tmp_path)]
    subprocess.run(command, cwd=ROOT, check=True)
    for folder, copy in (
        ("configs", "mmseg_otseg/configs"),
        ("mmseg_otseg", "mmseg_otseg"),
        ("tools", "mmseg_otseg_tools"),
    ):
        found = [*(ROOT / folder).rglob("*.py"), *(ROOT / folder).rglob("*.safetensors")]
        files = {file.relative_to(ROOT / folder) for file in found}
        missing = {file for file in files if not (tmp_path / copy / file).is_file()}
        assert files and not missing
