"""How the command line and configs are read, and what is answered before anything slow is."""

from __future__ import annotations

import os
import shlex
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from mmengine.config import Config
from mmseg_otseg_cli.__main__ import COMMANDS, main
from mmseg_otseg_cli.config import (
    check_keys,
    find_config,
    load_config,
    read_config,
    resolved,
)
from mmseg_otseg_cli.errors import CommandError
from mmseg_otseg_cli.options import add_launcher, config_parser, parse_value
from mmseg_otseg_cli.web_demo import check_port

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
from mmseg_otseg_cli.config import read_config
from mmseg_otseg_cli.options import config_parser
args = config_parser("").parse_args(["otseg/voc_512"])
try:
    read_config(args, "train", "val")
except FileNotFoundError as error:
    print(error)
"""
    text = in_new_process(script, tmp_path)
    assert "data/VOCdevkit/VOC2012" in text and "data_root" in text


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
        ("[red cross, sky]", ["red cross", "sky"]),
        ("['red cross','a  b']", ["red cross", "a  b"]),
        ('["sky, blue",road]', ["sky, blue", "road"]),
        ("[sky,road (paved, grey)]", ["sky", "road (paved, grey)"]),
        ('[farmer\'s market,"a [b"]', ["farmer's market", "a [b"]),
        ("road (paved, grey)", "road (paved, grey)"),
        ("/my data/x", "/my data/x"),
        ("[(1, 2), [3 , None]]", [(1, 2), [3, None]]),
        ("[(a b,c),(d,)]", [("a b", "c"), ("d",)]),
        ("a, b c", ["a", "b c"]),
        ("1,2", [1, 2]),
        (" 0.5 ", 0.5),
        ("1e-3", 0.001),
        ("true", True),
        ("bf16", "bf16"),
        ("", ""),
        ("dict(max_norm=1, betas=(0.9,0.99))", {"max_norm": 1, "betas": (0.9, 0.99)}),
        ("{'a': 1, b: {c: d e}}", {"a": 1, "b": {"c": "d e"}}),
    ],
)
def test_values_of_settings(text: str, value: object) -> None:
    args = config_parser("").parse_args(["c.py", "--cfg-options", f"model.a={text}", "b=1"])
    assert args.cfg_options == {"model.a": value, "b": 1}


@pytest.mark.parametrize("text", ["[a", "a], b", "[a[b]", '["a, b]', "{a}", "dict(a)"])
def test_values_that_cannot_be_read(text: str) -> None:
    with pytest.raises(CommandError):
        parse_value(text)


def test_a_setting_without_a_value(capsys: pytest.CaptureFixture) -> None:
    with pytest.raises(SystemExit):
        config_parser("").parse_args(["config.py", "--cfg-options", "model.depth"])
    assert "model.depth" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("wrong", "right"),
    [
        ("train_dataloder.batch_size=8", "train_dataloader.batch_size"),
        ("train_dataloader.batchsize=8", "train_dataloader.batch_size"),
        ("model.decode_head.seen_bais=0", "model.decode_head.seen_bias"),
        ("lode_from=x.pth", "load_from"),
        ("xyz=1", "nothing would read it"),
    ],
)
def test_mistyped_keys_name_the_right_one(wrong: str, right: str) -> None:
    cfg = Config.fromfile(find_config("otseg/voc_512")).to_dict()
    cfg["model"]["decode_head"].setdefault("seen_bias", 0.1)
    with pytest.raises(CommandError, match=right):
        check_keys(cfg, {wrong.partition("=")[0]: None})


@pytest.mark.parametrize("config", ["otseg/voc_512", "zegot/voc_512", "own_data/otseg_512_trial"])
def test_new_keys_that_something_reads_pass(config: str) -> None:
    cfg = Config.fromfile(find_config(config)).to_dict()
    keys = (
        "model.clip.precision model.split.unseen model.neck.text model.backbone.with_cp "
        "model.backbone.save_clip model.clip.quick_gelu model.decode_head.transport "
        "model.decode_head.predict_from model.decode_head.seen_bias optim_wrapper.loss_scale "
        "train_dataloader.dataset.drop_unseen_images optim_wrapper.clip_grad.max_norm "
        "optim_wrapper.dtype load_from compile compile.backend data_root background "
        "default_hooks.checkpoint.max_keep_ckpts val_dataloader.persistent_workers"
    )
    check_keys(cfg, dict.fromkeys(keys.split()))


def test_installed_configs_are_found_by_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    file = ROOT / "configs" / "otseg" / "voc_512.py"
    for name in ("otseg/voc_512", "otseg/voc_512.py", "configs/otseg/voc_512.py"):
        assert Path(find_config(name)).samefile(file)
    with pytest.raises(FileNotFoundError, match=r"otseg/voc_51.* mean otseg/voc_512\?"):
        find_config("otseg/voc_51")
    (tmp_path / "otseg").mkdir()
    (tmp_path / "otseg" / "voc_512.py").touch()
    assert find_config("otseg/voc_512.py") == "otseg/voc_512.py"  # one's own comes first


def test_missing_files_are_named(tmp_path: Path) -> None:
    write_images(tmp_path)
    config = tmp_path / "tiny.py"
    tiny_config(tmp_path).dump(config)
    with pytest.raises(FileNotFoundError, match=r"none\.pth"):
        run_tool("train", config, "--cfg-options", f"load_from={tmp_path / 'none.pth'}")
    for entry, wrong in (("data_root", "nowhere"), ("data_prefix.seg_map_path", "labels/none")):
        with pytest.raises(FileNotFoundError, match=wrong):
            options = [f"train_dataloader.dataset.{entry}={wrong}", "model.type=Nothing"]
            run_tool("train", config, "--cfg-options", *options)
    for weights in ("ViT-B-16.pt", "weights/clip"):
        with pytest.raises(FileNotFoundError, match=weights):
            run_tool("train", config, "--cfg-options", f"model.clip.pretrained={weights}")


def test_configs_that_cannot_be_read(tmp_path: Path) -> None:
    (tmp_path / "broken.py").write_text("model = dict(\n")
    with pytest.raises(CommandError, match=r"broken\.py"):
        run_tool("train", tmp_path / "broken.py")
    (tmp_path / "c.py").write_text('custom_imports = dict(imports=["my_missing_head"])\n')
    with pytest.raises(CommandError, match=r"my_missing_head.*PYTHONPATH"):
        load_config(config_parser("").parse_args([str(tmp_path / "c.py")]))
    (tmp_path / "c.py").write_text("model = dict(a=3)\n")
    with pytest.raises(CommandError, match=r"c\.py"):
        run_tool("test", tmp_path / "c.py", "none.pth", "--cfg-options", "model.a.b=1")


def test_a_busy_port_of_the_page() -> None:
    with socket.create_server(("127.0.0.1", 0)) as busy:
        port = busy.getsockname()[1]
        with pytest.raises(OSError, match=f"{port}.*--port"):
            check_port("127.0.0.1", port)
    check_port("127.0.0.1", 0)


def test_older_launchers_name_the_process(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(os, "environ", {})
    Config(dict(work_dir="here")).dump(tmp_path / "c.py")
    parser = config_parser("")
    add_launcher(parser)
    args = parser.parse_args(shlex.split(f"{tmp_path}/c.py --local_rank 3"))
    assert read_config(args).work_dir == "here"
    assert os.environ["LOCAL_RANK"] == "3"


def test_the_printed_config_is_the_one_of_the_run(
    tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    write_images(tmp_path)
    tiny_config(tmp_path).dump(tmp_path / "tiny.py")
    capsys.readouterr()
    run_tool("show_config", tmp_path / "tiny.py", "--cfg-options", "compile=True")
    (tmp_path / "printed.py").write_text(capsys.readouterr().out)
    printed = Config.fromfile(tmp_path / "printed.py")
    assert printed.compile is True
    args = config_parser("").parse_args([str(tmp_path / "tiny.py")])
    assert printed.model == resolved(load_config(args)).model
