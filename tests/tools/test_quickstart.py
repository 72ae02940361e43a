from __future__ import annotations

from pathlib import Path

import pytest

from mmseg_otseg.datasets.shapes import export_voc
from tests.helpers.paths import ROOT
from tests.helpers.run_tools import last_metrics, run_tool


def test_the_config_trains_on_generated_data(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    export_voc("data", train=3, aug=2, val=8)  # enough to show unseen classes
    options = ["train_cfg.max_iters=2", "train_cfg.val_interval=2"]
    for loader in ("train_dataloader", "val_dataloader"):
        options += [f"{loader}.num_workers=0", f"{loader}.persistent_workers=False"]
    config = ROOT / "configs" / "quickstart" / "voc_layout.py"
    run_tool("train", config, "--work-dir", tmp_path / "run", "--cfg-options", *options)
    assert (tmp_path / "run" / "iter_2.pth").is_file()
    assert {"mIoU_S", "mIoU_U", "hIoU"} <= set(last_metrics(tmp_path / "run"))
