"""What the README and the pages name exists, and the settings and snippets that they give train."""

from __future__ import annotations

import contextlib
import io
import pkgutil
import re
import runpy
import shlex
import subprocess
import sys
from functools import cache
from importlib import import_module
from pathlib import Path
from unittest.mock import patch

import mmseg
import pytest
from mmengine.config import Config
from mmseg_otseg_cli.__main__ import COMMANDS
from mmseg_otseg_cli.config import check_keys, config_names, find_config

from tests.helpers.paths import ROOT
from tests.helpers.run_tools import last_metrics, run_tool
from tests.helpers.small_configs import write_data
from tests.helpers.tiny_clip import tiny_clip

PAGES = [
    ROOT / "README.md",
    ROOT / "CONTRIBUTING.md",
    ROOT / "CHANGELOG.md",
    *sorted((ROOT / "docs").glob("*.md")),
    *sorted((ROOT / "configs").rglob("*.md")),
    ROOT / "tools" / "benchmarks" / "README.md",
]
#: What the reader writes, and what is MMSegmentation's.
NOT_HERE = {"configs/own_data/streets.py", "tools/dataset_converters/voc_aug.py"}
MMSEG = Path(mmseg.__file__).parent / ".mim" / "configs"
EXISTING = (ROOT / "docs" / "existing_configs.md").read_text(encoding="utf-8")


def code(text: str) -> list[str]:
    """The code of a page: the lines of its blocks, and its spans."""
    blocks = re.findall(r"^```\w+\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    spans = re.findall(r"(?<!`)`([^`\n]+)`(?!`)", re.sub(r"(?ms)^```.*?^```", "", text))
    return [*(line for block in blocks for line in block.splitlines()), *spans]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_paths_commands_and_names(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    for link in re.findall(r"\]\((?!\w+:)([^)#\s]+)", text):
        assert (page.parent / link).exists(), link
    if page.name == "CHANGELOG.md":  # names what is gone, too
        return
    for line in code(text):
        for path in re.findall(r"(?<![\w./-])((?:configs|docs|tests|tools)/[\w./-]*\w)", line):
            assert path in NOT_HERE or list(ROOT.glob(f"{path}*")), path
        for name in re.findall(r"\bmmseg_otseg(?:\.\w+)+", line):
            pkgutil.resolve_name(name)
        check_command(line)


def check_command(line: str) -> None:
    """Check that a command and all of its options exist."""
    found = re.match(r"(?:python |bash )?(tools/[\w/]+\.(?:py|sh)) |mmseg-otseg (\S+) ?", line)
    if not found:
        return
    script, command = found.groups()
    module = Path(script or "").stem.removeprefix("dist_")
    if command and command != "--version":
        module = COMMANDS[command][0]
    if module in {name for name, _ in COMMANDS.values()}:
        words = shlex.split(line, comments=True)
        for word in words:
            assert not word.startswith("--") or word in help_of(module), f"{module} {word}"
            assert not word.startswith("otseg/") or word in config_names(), word


@cache
def help_of(module: str) -> str:
    """What a tool says about itself."""
    text, main = io.StringIO(), import_module(f"mmseg_otseg_cli.{module}").main
    argv = patch.object(sys, "argv", [module, "--help"])
    with argv, contextlib.redirect_stdout(text), pytest.raises(SystemExit):
        main()
    return text.getvalue()


def test_tables_of_results_are_those_of_the_metafiles() -> None:
    tables = runpy.run_path(str(ROOT / "docs" / "tables.py"))
    assert tables["page"]() == tables["PAGE"].read_text(encoding="utf-8")


def test_the_settings_of_the_pages_exist() -> None:
    keys: set[str] = set()
    for page in (ROOT / "docs").glob("*.md"):
        text = page.read_text(encoding="utf-8")
        keys |= set(re.findall(r"[`\s]((?:model|optim_wrapper|train_\w+)(?:\.\w+)+)[=`]", text))
    assert len(keys) > 9
    check_keys(Config.fromfile(find_config("otseg/voc_512")).to_dict(), dict.fromkeys(keys))


@pytest.mark.skipif(not MMSEG.is_dir(), reason="mmsegmentation without its configs")
@pytest.mark.parametrize(
    "stock",
    [
        "fcn/fcn_r50-d8_4xb4-20k_voc12aug-512x512.py",
        "segformer/segformer_mit-b0_8xb2-160k_ade20k-512x512.py",
        "vit/vit_vit-b16_mln_upernet_8xb2-80k_ade20k-512x512.py",
    ],
)
def test_in_a_config_you_already_have(
    stock: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The snippet fits configs of other models; that of VOC trains and is tested."""
    (text,) = re.findall(r"^```python\n(.*?)^```$", EXISTING, re.MULTILINE | re.DOTALL)
    clip = tiny_clip(patch_size=64)
    text = text.replace("[...]", str(list(mmseg.datasets.PascalVOCDataset.METAINFO["classes"])))
    text = text.replace("embed_dim=512", f"embed_dim={clip['embed_dim']}")
    text = re.sub(r"(?m)^clip = dict\(.*\)$", f"clip = dict(model={clip})", text)
    if "neck" in Config.fromfile(MMSEG / stock, import_custom_modules=False).model:
        text = text.replace("neck=dict(type", "neck=dict(_delete_=True, type")  # as the page says
    config = tmp_path / "existing.py"
    config.write_text(f'_base_ = "{MMSEG / stock}"\n{text}')
    cfg = Config.fromfile(config)
    assert cfg.optim_wrapper.optimizer.type == "AdamW" and len(cfg.param_scheduler) == 1
    for part in ("train", "val", "test"):
        assert cfg[f"{part}_dataloader"].dataset.type == "ZeroShotDataset"
    if "voc12" not in stock:
        return
    write_data(tmp_path)
    monkeypatch.chdir(tmp_path)
    options = ["train_cfg.max_iters=1", "train_cfg.val_interval=1", "train_dataloader.batch_size=2"]
    options += ["default_hooks.checkpoint.interval=1"]
    for part in ("train", "val", "test"):
        options += [f"{part}_dataloader.num_workers=0"]
        options += [f"{part}_dataloader.persistent_workers=False"]
    run_tool("train", config, "--work-dir", tmp_path, "--cfg-options", *options)
    run_tool("test", config, tmp_path / "iter_1.pth", "--work-dir", tmp_path / "test")
    assert "hIoU" in last_metrics(tmp_path / "test")


@pytest.mark.slow
@pytest.mark.parametrize("script", ["tools/quickstart.sh", "tools/demo.sh"])
def test_a_script_that_sets_up_runs(script: str) -> None:
    subprocess.run(["bash", str(ROOT / script)], check=True)
