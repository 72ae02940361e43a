"""How the command line and configs are read, and what is answered before anything slow is."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from mmengine.config import Config
from mmseg_otseg_cli.__main__ import COMMANDS, main
from mmseg_otseg_cli.config import check_keys, find_config
from mmseg_otseg_cli.errors import CommandError
from mmseg_otseg_cli.options import config_parser, parse_value

from tests.helpers.paths import ROOT
from tests.helpers.run_tools import run_tool
from tests.helpers.tiny_run import tiny_config, write_images


def in_new_process(script: str, folder: Path) -> str:
    """What a script prints, if nothing slow is loaded at its end."""
    script += "\nslow = {'torch', 'mmseg', 'mmseg_otseg'} & set(sys.modules); assert not slow, slow"
    command = [sys.executable, "-c", f"import sys\n{script}"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=folder)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_help_of_every_tool_imports_nothing_slow(tmp_path: Path) -> None:
    files = (ROOT / "tools").rglob("*.py")
    tools = [str(file) for file in files if "(main)" in file.read_text()]
    assert len(tools) >= 12
    script = f"""
import contextlib, io, runpy
for tool in {tools}:
    sys.argv = [tool, "--help"]
    sys.path.insert(0, tool.rpartition("/")[0])
    text = io.StringIO()
    with contextlib.redirect_stdout(text), contextlib.suppress(SystemExit):
        runpy.run_path(tool, run_name="__main__")
    assert "usage" in text.getvalue() and "TRACEBACK" in text.getvalue(), tool
"""
    in_new_process(script, tmp_path)


def test_missing_data_are_reported_before_anything_slow_is_imported(tmp_path: Path) -> None:
    script = """
from mmseg_otseg_cli.config import load_config
from mmseg_otseg_cli.options import config_parser
args = config_parser("").parse_args(["otseg/voc_512"])
try:
    load_config(args, "train", "val")
except FileNotFoundError as error:
    print(error)
"""
    text = in_new_process(script, tmp_path)
    assert "data/VOCdevkit/VOC2012" in text and "data_root" in text


@pytest.mark.parametrize("base", ["../_base_/models/otseg.py", "mmseg_otseg::otseg/voc_512.py"])
def test_a_base_that_is_not_found_has_a_remedy(base: str, tmp_path: Path) -> None:
    """As in a config that was copied out of the project."""
    (tmp_path / "copied.py").write_text(f'_base_ = "{base}"')
    with pytest.raises(CommandError, match=f"_base_.*{ROOT / 'configs'}.*mmseg-otseg config"):
        run_tool("train", tmp_path / "copied.py")


def test_the_commands(capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    for arguments in (["--help"], ["--version"], ["configs"]):
        monkeypatch.setattr(sys, "argv", ["mmseg-otseg", *arguments])
        try:
            main()
        except SystemExit as ended:
            assert not ended.code
    printed = capsys.readouterr().out
    assert all(f"  {name} " in printed for name in COMMANDS) and "\notseg/voc_512\n" in printed
    monkeypatch.setattr(sys, "argv", ["mmseg-otseg", "trian"])
    with pytest.raises(SystemExit, match="trian"):
        main()


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("['red cross','a  b']", ["red cross", "a  b"]),
        ('["sky, blue",road]', ["sky, blue", "road"]),
        ("[sky,'road (paved, grey)']", ["sky", "road (paved, grey)"]),
        ('[farmer\'s market,"a [b"]', ["farmer's market", "a [b"]),
        ("road (paved)", "road (paved)"),
        ("/my data/x", "/my data/x"),
        ("a, b c", ["a", "b c"]),
        ("1e-3", 0.001),
        ("(0.9, 0.99)", (0.9, 0.99)),
        ("true", True),
        ("bf16", "bf16"),
        ("{'a': 1, b: {c: d e}}", {"a": 1, "b": {"c": "d e"}}),
        ("{type: AdamW, lr: 1e-5}", {"type": "AdamW", "lr": 1e-5}),
    ],
)
def test_values_of_settings(text: str, value: object) -> None:
    args = config_parser("").parse_args(["c.py", "--cfg-options", f"model.a={text}", "b=1"])
    assert args.cfg_options == {"model.a": value, "b": 1}


def test_mistakes_in_options_are_named() -> None:
    for text in ("[a", '["a, b]', "[sky,road (paved, gray)]"):
        with pytest.raises(CommandError):
            parse_value(text)
    cfg = Config.fromfile(find_config("otseg/voc_512")).to_dict()
    for wrong, right in (
        ("train_dataloder.batch_size", "train_dataloader.batch_size"),
        ("model.decode_head.predict_form", "model.decode_head.predict_from"),
        ("test_pipeline.1.keep_ration", "test_pipeline.1.keep_ratio"),
        ("lr", "nothing reads it"),
        ("load_form", "load_from"),
    ):
        with pytest.raises(CommandError, match=right):
            check_keys(cfg, {wrong: None})
    # What mmengine or a tool reads is right even where the config does not have it.
    check_keys(cfg, {"protocol": "openseg", "auto_scale_lr.enable": True, "compile": True})


def test_installed_configs_are_found_by_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    file = ROOT / "configs" / "otseg" / "voc_512.py"
    for name in ("otseg/voc_512", "otseg/voc_512.py", "configs/otseg/voc_512.py"):
        assert Path(find_config(name)).samefile(file)
    with pytest.raises(FileNotFoundError, match=r"otseg/voc_51.* mean otseg/voc_512\?"):
        find_config("otseg/voc_51")
    (tmp_path / "streets.py").touch()
    with pytest.raises(FileNotFoundError, match=r"mean streets\.py\?"):
        find_config("street.py")
    (tmp_path / "otseg").mkdir()
    (tmp_path / "otseg" / "voc_512.py").touch()
    assert find_config("otseg/voc_512.py") == "otseg/voc_512.py"  # one's own comes first


def test_missing_files_are_named(tmp_path: Path) -> None:
    write_images(tmp_path)
    config = tmp_path / "tiny.py"
    tiny_config(tmp_path).dump(config)
    with pytest.raises(FileNotFoundError, match="is a folder"):
        run_tool("test", config, tmp_path)
    for option in (
        f"load_from={tmp_path}/none.pth",
        "train_dataloader.dataset.dataset.data_root=nowhere",
        "train_dataloader.dataset.dataset.subset=none",
    ):
        with pytest.raises(FileNotFoundError, match=option.partition("=")[2]):
            run_tool("train", config, "--cfg-options", option, "model.type=Nothing")
    for tool, missing in (("train", "train_"), ("test", "--data"), ("calibrate_seen_bias", "val_")):
        with pytest.raises(CommandError, match=missing):
            run_tool(tool, "training_free/names")
