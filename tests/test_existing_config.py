"""mmseg's own configs and tools take the components as they are."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import mmseg
import pytest
from mmengine.config import Config

from mmseg_otseg.datasets.shapes import export_voc
from tests.conftest import tiny_clip
from tests.tiny_run import ROOT

MMSEG = Path(mmseg.__file__).parent / ".mim"

EXISTING = """
_base_ = "{config}"
custom_imports = dict(imports=["mmseg_otseg"])
clip = dict(model={clip})
split = dict(
    classes={classes},
    unseen=["sofa", "train"],
)
model = dict(
    pretrained=None,
    auxiliary_head=None,
    backbone=dict(_delete_=True, type="CLIPBackbone", clip=clip, visual_prompts=dict(num_tokens=2)),
    neck=dict(type="DLFANeck", clip=clip, text=dict(type="TemplatePrompts", split=split)),
    decode_head=dict(_delete_=True, type="MPSAHead", clip=clip, num_classes=21),
)
"""


@pytest.mark.skipif(not MMSEG.is_dir(), reason="mmsegmentation was installed without its configs")
def test_existing_config_with_the_three_components_trains(tmp_path: Path) -> None:
    """A stock config, trained and tested by mmseg's own tools."""
    export_voc(tmp_path / "data", train=4, aug=2, val=2)
    stock = MMSEG / "configs" / "fcn" / "fcn_r50-d8_4xb4-20k_voc12aug-512x512.py"
    classes = list(mmseg.datasets.PascalVOCDataset.METAINFO["classes"])
    clip = tiny_clip(patch_size=64)
    config = tmp_path / "existing.py"
    config.write_text(EXISTING.format(config=stock, clip=clip, classes=classes))
    ours, theirs = Config.fromfile(config).model, Config.fromfile(stock).model
    assert ours.data_preprocessor == theirs.data_preprocessor

    checkpoint = tmp_path / "run" / "iter_2.pth"
    options = ["train_cfg.max_iters=2", "train_cfg.val_interval=2"]
    options += ["train_dataloader.num_workers=0", "train_dataloader.persistent_workers=False"]
    options += ["val_dataloader.num_workers=0", "val_dataloader.persistent_workers=False"]
    options += ["default_hooks.checkpoint.interval=2", "train_dataloader.batch_size=2"]
    run_tool("train.py", config, "--work-dir", tmp_path / "run", "--cfg-options", *options)
    assert checkpoint.is_file()
    options = ["test_dataloader.num_workers=0", "test_dataloader.persistent_workers=False"]
    log = run_tool("test.py", config, checkpoint, "--cfg-options", *options)
    assert "mIoU" in log


def run_tool(name: str, config: Path, *arguments: object) -> str:
    """Run one of mmseg's tools beside the config; its output."""
    command = [sys.executable, MMSEG / "tools" / name, config, *arguments]
    paths = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    done = subprocess.run(
        [str(part) for part in command],
        cwd=config.parent,
        env={**os.environ, "PYTHONPATH": paths},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return done.stdout + done.stderr
