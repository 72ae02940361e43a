"""The README's commands and settings exist as they are written; its snippets train."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
import sys
from importlib import import_module
from pathlib import Path
from unittest.mock import patch

import mmseg
import numpy as np
import pytest
from mmengine.config import Config
from mmseg_otseg_cli.config import check_keys, find_config

from mmseg_otseg.inference import OTSegInferencer, set_classes
from mmseg_otseg.structures import ClassSplit
from tests.helpers.paths import ROOT
from tests.helpers.run_tools import last_metrics, run_tool
from tests.helpers.small_configs import small, write_data
from tests.helpers.tiny_clip import tiny_clip

README = (ROOT / "README.md").read_text(encoding="utf-8")
MMSEG = Path(mmseg.__file__).parent / ".mim" / "configs"
#: Commands as they stand in the README, up to a comment.
COMMANDS = (
    "python tools/train.py configs/otseg/voc_512.py --amp --resume",
    "python tools/test.py  configs/otseg/voc_512.py CHECKPOINT --show-dir drawn --tta",
    'python tools/segment.py photos/ --classes "cat, sofa" --model configs/otseg/voc_512.py '
    "--weights CHECKPOINT --out out",
    "python tools/export.py configs/otseg/voc_512.py CHECKPOINT exported",
    "python tools/web_demo.py",
    "python tools/web_demo.py --model configs/otseg/voc_512.py --weights CHECKPOINT "
    "--images photos/",
    "python tools/analysis/get_flops.py configs/otseg/voc_512.py",
    "tools/analysis/check_clip.py CONFIG",
    "tools/analysis/calibrate_seen_bias.py CONFIG CHECKPOINT --write",
    "tools/model_converters/authors_to_mmseg.py SRC DST",
    "tools/test.py configs/otseg/voc_512.py DST",
    "tools/test.py configs/cross_dataset/cocostuff_to_voc_512.py CHECKPOINT",
)


@pytest.mark.parametrize("command", COMMANDS)
def test_a_command_takes_its_options(command: str) -> None:
    assert command in README
    words = [word for word in shlex.split(command) if word != "python"]
    assert (ROOT / words[0]).is_file()
    tool = import_module(f"mmseg_otseg_cli.{Path(words[0]).stem}")
    with patch.object(sys, "argv", words):
        tool.parse_args()


@pytest.mark.parametrize("script", ["demo.sh", "demo.sh --train", "run_tests.sh", "quickstart.sh"])
def test_a_script_is_there(script: str) -> None:
    assert f"bash tools/{script}" in README
    subprocess.run(["bash", "-n", str(ROOT / "tools" / script.split()[0])], check=True)


@pytest.mark.slow
@pytest.mark.parametrize("script", ["tools/quickstart.sh", "tools/demo.sh"])
def test_a_script_that_sets_up_runs(script: str) -> None:
    subprocess.run(["bash", str(ROOT / script)], check=True)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """The folder of the small VOC config and of photos/, and a checkpoint of two iterations."""
    folder = tmp_path_factory.mktemp("readme")
    write_data(folder)
    cfg = small("otseg/voc_512.py", folder)
    cfg.dump(folder / "voc_512.py")
    (folder / "photos").mkdir()
    shutil.copy(folder / "data/VOCdevkit/VOC2012/JPEGImages/val0.jpg", folder / "photos")
    run_tool("train", folder / "voc_512.py", "--work-dir", folder / "run")
    return folder, folder / "run" / "iter_2.pth"


def test_training_goes_on_and_is_tested(trained: tuple[Path, Path]) -> None:
    folder, checkpoint = trained
    options = ("--work-dir", folder / "run", "--cfg-options", "train_cfg.max_iters=3")
    run_tool("train", folder / "voc_512.py", "--amp", "--resume", *options)
    assert (folder / "run" / "iter_3.pth").is_file()
    shown = ("--show-dir", folder / "drawn", "--tta", "--work-dir", folder / "tested")
    run_tool("test", folder / "voc_512.py", checkpoint, *shown)
    assert len(list((folder / "drawn").rglob("*.jpg"))) == 2
    assert "hIoU" in last_metrics(folder / "tested")


def test_any_class_names_in_python(trained: tuple[Path, Path]) -> None:
    folder, checkpoint = trained
    inferencer = OTSegInferencer(str(folder / "voc_512.py"), str(checkpoint))
    call = dict(classes=["cat", "sofa"], none_below=0.5, out_dir=str(folder / "out"))
    assert len(inferencer(str(folder / "photos"), **call)["predictions"]) == 1
    assert (folder / "out" / "pred").is_dir() and (folder / "out" / "vis").is_dir()
    set_classes(inferencer.model, ["cat", "sofa", "lamp"])


#: Settings of the table of wishes.
SETTINGS = (
    "model.clip.quick_gelu=True",
    "model.decode_head.predict_from=decoder",
    "model.decode_head.seen_bias=0",
    "model.decode_head.transport=softmax",
    "model.split.unseen=[cow,motorbike]",
    "model.neck.text=text.npy",
    "train_dataloader.dataset.drop_unseen_images=True",
    "model.backbone.save_clip=True",
    "model.clip.precision=bf16",
    "model.backbone.with_cp=True",
    "compile=True",
)


def test_one_wish_one_line(trained: tuple[Path, Path], tmp_path: Path) -> None:
    """The settings are in the README, are accepted, and most of them together train."""
    folder, _ = trained
    keys = [setting.partition("=")[0] for setting in SETTINGS]
    assert all(setting in README.replace('"', "") for setting in SETTINGS)
    check_keys(Config.fromfile(find_config("otseg/voc_512")).to_dict(), dict.fromkeys(keys))
    text = np.random.default_rng(0).normal(size=(20, 6, tiny_clip()["embed_dim"]))
    np.save(tmp_path / "text.npy", text / np.linalg.norm(text, axis=-1, keepdims=True))
    alone = ("compile=True", "train_dataloader.dataset.drop_unseen_images=True")
    together = [setting for setting in SETTINGS if setting not in alone]
    together = [setting.replace("text.npy", str(tmp_path / "text.npy")) for setting in together]
    run_tool("train", folder / "voc_512.py", "--work-dir", tmp_path, "--cfg-options", *together)
    assert (tmp_path / "iter_2.pth").is_file()


def snippets() -> list[str]:
    """The blocks of "In a config you already have"."""
    section = README.split("### In a config you already have")[1].split("\n### ")[0]
    return re.findall(r"^```python\n(.*?)^```$", section, re.MULTILINE | re.DOTALL)


@pytest.mark.skipif(not MMSEG.is_dir(), reason="mmsegmentation without its configs")
@pytest.mark.parametrize(
    "stock",
    [
        "fcn/fcn_r50-d8_4xb4-20k_voc12aug-512x512.py",
        "vit/vit_vit-b16_mln_upernet_8xb2-80k_ade20k-512x512.py",
    ],
)
def test_in_a_config_you_already_have(
    stock: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The snippets fit configs of other models; that of VOC trains and is tested."""
    classes = list(mmseg.datasets.PascalVOCDataset.METAINFO["classes"])
    text = "\n".join(snippets()).replace("[...]", str(classes))
    clip = f"clip = dict(model={tiny_clip(patch_size=64)})"
    text = re.sub(r"(?m)^clip = dict\(.*\)$", clip, text)
    if "neck" in Config.fromfile(MMSEG / stock, import_custom_modules=False).model:
        text = text.replace("neck=dict(", "neck=dict(_delete_=True, ")  # as the README says
    config = tmp_path / "existing.py"
    config.write_text(f'_base_ = "{MMSEG / stock}"\n{text}')
    cfg = Config.fromfile(config)
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


def test_links_paths_and_names_lead_somewhere() -> None:
    for target in re.findall(r"\]\(([^)#]+)\)", README):
        assert target.startswith("https://") or (ROOT / target).exists(), target
    for path in re.findall(r"`((?:configs|tools|tests|mmseg_otseg)(?:/[\w.]+)+)`", README):
        assert (ROOT / path).exists(), path
    for module, name in re.findall(r"`(mmseg_otseg(?:\.\w+)*)\.(\w+)(?:\([^`]*\))?`", README):
        assert hasattr(import_module(module), name), name
    for name in ("voc", "context", "cocostuff", "ade20k"):
        assert f"`{name}`" in README and ClassSplit.build(name).classes
