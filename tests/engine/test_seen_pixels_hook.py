from __future__ import annotations

import re
from pathlib import Path

import cv2
import pytest

from mmseg_otseg.engine import ZeroShotRunner
from tests.helpers.otseg_run import otseg_config
from tests.helpers.tiny_run import CLASSES, write_images


def test_nothing_seen_is_said(tmp_path: Path, capfd: pytest.CaptureFixture) -> None:
    write_images(tmp_path)
    cfg = otseg_config(tmp_path, train_cfg=dict(max_iters=1, val_interval=2))
    split = dict(classes=CLASSES, unseen=CLASSES[:2])  # no pixel is of the third, see below
    cfg.merge_from_dict({"model.neck.text.split": split})
    for part in ("train", "val", "test"):
        cfg.merge_from_dict({f"{part}_dataloader.dataset.split": split})
    for path in (tmp_path / "labels" / "train").glob("*.png"):
        label = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
        cv2.imwrite(str(path), label % 2)
    runner = ZeroShotRunner.from_cfg(cfg)
    runner.train()
    assert runner.message_hub.get_scalar("train/seen_pixels").current() == 0
    text = "".join(capfd.readouterr())
    assert re.search(r" 1 iterations .*check_data\.py", text)
    assert "seen_pixels: 0.0" in text
