"""What the tools tell of an error, and what they answer before anything slow is imported."""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import pytest
import torch
from mmengine.config import Config
from mmengine.logging import MMLogger
from mmseg.registry import MODELS
from mmseg_otseg_tools import cli
from torch.utils.data import DataLoader, Dataset

from mmseg_otseg.models import ZegCLIPHead
from mmseg_otseg.models.text import TemplatePrompts
from mmseg_otseg.structures import ClassSplit
from tests.helpers.paths import ROOT
from tests.helpers.run_tools import run_tool
from tests.helpers.tiny_run import tiny_config, write_images

TOOLS = sorted(
    file
    for file in (ROOT / "tools").rglob("*.py")
    if "ArgumentParser" in file.read_text() or "_parser(" in file.read_text()
)


def test_help_of_every_tool_imports_nothing_slow() -> None:
    tools = [str(tool) for tool in TOOLS if tool.name != "cli.py"]
    assert len(tools) >= 12
    script = f"""
import contextlib, io, runpy, sys
for tool in {tools}:
    sys.argv = [tool, "--help"]
    sys.path.insert(0, tool.rpartition("/")[0])
    text = io.StringIO()
    with contextlib.redirect_stdout(text), contextlib.suppress(SystemExit):
        runpy.run_path(tool, run_name="__main__")
    assert "usage" in text.getvalue() and "TRACEBACK" in text.getvalue(), tool
    slow = {{"torch", "numpy", "mmengine", "mmseg_otseg"}} & set(sys.modules)
    assert not slow, (tool, slow)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("[red cross, sky]", ["red cross", "sky"]),
        ("['red cross','a  b']", ["red cross", "a  b"]),
        ("/my data/x", "/my data/x"),
        ("[(1, 2), [3 , None]]", [(1, 2), [3, None]]),
        (" 0.5 ", 0.5),
        ("a, b c", ["a", "b c"]),
    ],
)
def test_settings_keep_blanks_in_names_and_paths(text: str, value: object) -> None:
    parser = cli.new_parser(None)
    cli.add_cfg_options(parser)
    args = parser.parse_args(["--cfg-options", f"model.a={text}", "b=1"])
    assert args.cfg_options == {"model.a": value, "b": 1}


def caught(function, *arguments: object) -> Exception:
    with pytest.raises(Exception) as error:
        function(*arguments)
    return error.value


def test_what_the_project_says_on_purpose_is_for_the_user() -> None:
    assert "names" in cli.what_to_fix(caught(ClassSplit.build, {"classes": ["cat", "cat"]}))
    assert cli.what_to_fix(OSError(28, "No space left on device")).endswith("device")
    assert cli.what_to_fix(torch.OutOfMemoryError("out of memory")) == "out of memory"
    assert "Nothing is not in" in cli.what_to_fix(caught(MODELS.build, dict(type="Nothing")))
    unknown = dict(type="CLIPBackbone", color=3)
    assert "color" in cli.what_to_fix(caught(MODELS.build, unknown))


def test_an_option_that_a_base_class_does_not_take() -> None:
    class Head(ZegCLIPHead):
        def __init__(self, **options: object) -> None:
            super().__init__(**options)

    config = dict(type=Head, num_classes=3, embed_dim=16, predict_from="score")
    told = cli.what_to_fix(caught(MODELS.build, config))
    assert told and "predict_from" in told and "_delete_" in told


def test_a_module_of_custom_imports_that_is_not_found(tmp_path: Path) -> None:
    config = tmp_path / "config.py"
    config.write_text('custom_imports = dict(imports=["my_missing_head"])\n')
    told = cli.what_to_fix(caught(Config.fromfile, config))
    assert told and "my_missing_head" in told and "PYTHONPATH" in told
    args = cli.config_parser("").parse_args([str(config)])
    assert cli.what_to_fix(caught(cli.load_config, args)) == told


def test_the_log_file_has_the_traceback(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture
) -> None:
    log = tmp_path / "run.log"
    MMLogger.get_instance("cli_test", log_file=str(log))  # the current one from here on
    monkeypatch.setattr(sys, "argv", ["tools/train.py"])
    with pytest.raises(SystemExit):
        cli.run(lambda: ClassSplit.build({"classes": ["cat", "cat"]}))
    assert "Traceback" not in capfd.readouterr().err
    assert "Traceback" in log.read_text() and "cat" in log.read_text()

    log.write_text("")
    monkeypatch.setattr(logging, "raiseExceptions", True)  # restored afterwards
    MMLogger.get_current_instance().handlers[-1].stream = open("/dev/full", "w")  # noqa: SIM115
    with pytest.raises(SystemExit):
        cli.run(lambda: ClassSplit.build({"classes": ["cat", "cat"]}))
    assert capfd.readouterr().err.count("\n") == 1


def test_faults_of_the_program_are_not() -> None:
    assert cli.what_to_fix(caught(int, "three")) is None
    assert cli.what_to_fix(caught(torch.zeros(2).view, 3)) is None
    # A ValueError in the project's own code that nobody raised there on purpose.
    assert cli.what_to_fix(caught(TemplatePrompts, 5, 5, 5)) is None
    assert cli.what_to_fix(caught([].pop)) is None


class Unreadable(Dataset):
    def __len__(self) -> int:
        return 1

    def __getitem__(self, index: int) -> object:
        return ClassSplit.build({"classes": ["cat", "cat"]})


def test_errors_of_other_processes() -> None:
    error = caught(next, iter(DataLoader(Unreadable(), num_workers=1)))
    message = cli.what_to_fix(error)
    assert "cat" in message and "Traceback" not in message
    with ProcessPoolExecutor(1) as pool:
        error = caught(pool.submit(ClassSplit.build, {"classes": ["cat", "cat"]}).result)
        assert cli.what_to_fix(error) == message
        assert cli.what_to_fix(caught(pool.submit(int, "three").result)) is None


def test_run_tells_one_paragraph_and_the_traceback_if_asked(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture, tmp_path: Path
) -> None:
    def fail() -> None:
        ClassSplit.build({"classes": ["cat", "cat"]})

    monkeypatch.setattr(sys, "argv", ["tools/train.py"])
    monkeypatch.delenv(cli.TRACEBACK, raising=False)
    with pytest.raises(SystemExit) as exit_:
        cli.run(fail)
    assert exit_.value.code == 1
    told = capfd.readouterr().err
    assert told.startswith("train.py: error: ") and "Traceback" not in told
    assert told.count("\n") == 1

    with pytest.raises(SystemExit):
        cli.run(lambda: int("three"))
    assert "Traceback" in capfd.readouterr().err
    monkeypatch.setenv(cli.TRACEBACK, "1")
    with pytest.raises(SystemExit):
        cli.run(fail)
    assert "Traceback" in capfd.readouterr().err

    monkeypatch.delenv(cli.TRACEBACK)
    monkeypatch.setenv("TORCHELASTIC_ERROR_FILE", str(tmp_path / "error.json"))
    with pytest.raises(SystemExit):
        cli.run(fail)
    assert capfd.readouterr().err == ""
    assert json.loads((tmp_path / "error.json").read_text())["message"] == told.strip()


def test_paths_are_checked_before_anything_is_imported(tmp_path: Path) -> None:
    """Missing data, in a process that has not imported torch."""
    script = f"""
import sys
sys.path.insert(0, {str(ROOT)!r})
from mmseg_otseg_tools import cli
args = cli.config_parser("").parse_args([{str(ROOT / "configs/otseg/voc_512.py")!r}])
try:
    cli.read_config(args, "train", "val")
except FileNotFoundError as error:
    print(error)
assert not {{"torch", "mmseg", "mmseg_otseg"}} & set(sys.modules)
"""
    command = [sys.executable, "-c", script]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)
    assert "data/VOCdevkit/VOC2012" in done.stdout and "data_root" in done.stdout, done.stderr


def test_missing_files_are_named(tmp_path: Path) -> None:
    write_images(tmp_path)
    config = tmp_path / "tiny.py"
    cfg = tiny_config(tmp_path)
    cfg.dump(config)
    with pytest.raises(FileNotFoundError, match=r"none\.py"):
        run_tool("train", tmp_path / "none.py")
    with pytest.raises(FileNotFoundError, match=r"none\.pth"):
        run_tool("train", config, "--cfg-options", f"load_from={tmp_path / 'none.pth'}")
    for entry, wrong in (("data_root", "nowhere"), ("data_prefix.seg_map_path", "labels/none")):
        with pytest.raises(FileNotFoundError, match=wrong):
            options = [f"train_dataloader.dataset.{entry}={wrong}", "model.type=Nothing"]
            run_tool("train", config, "--cfg-options", *options)
    for weights in ("ViT-B-16.pt", "weights/clip"):
        with pytest.raises(FileNotFoundError, match=weights):
            run_tool("train", config, "--cfg-options", f"model.clip.pretrained={weights}")
    (tmp_path / "broken.py").write_text("model = dict(\n")
    with pytest.raises(ValueError, match=r"broken\.py"):
        run_tool("train", tmp_path / "broken.py")


def test_settings_without_a_value_are_refused(capsys: pytest.CaptureFixture) -> None:
    with pytest.raises(SystemExit):
        cli.config_parser("").parse_args(["config.py", "--cfg-options", "model.depth"])
    assert "model.depth" in capsys.readouterr().err
    args = cli.config_parser("").parse_args(["c.py", "--cfg-options", "a.b=3", 'c="[1,2]"'])
    assert args.cfg_options == {"a.b": 3, "c": "[1,2]"} or args.cfg_options["a.b"] == 3


def test_the_environment_names_the_process(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(os, "environ", {})
    Config(dict(work_dir="here")).dump(tmp_path / "c.py")
    args = cli.config_parser("").parse_args([str(tmp_path / "c.py"), "--local_rank", "3"])
    assert cli.read_config(args).work_dir == "here"
    assert os.environ["LOCAL_RANK"] == "3"
