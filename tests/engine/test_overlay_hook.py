from __future__ import annotations

import logging
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from mmengine.structures import PixelData
from mmseg.structures import SegDataSample
from PIL import Image

from mmseg_otseg.engine.hooks import OverlayHook


class Images(list):
    """What the hook needs of a dataset."""

    metainfo = {"classes": ("cat", "sofa")}

    def get_data_info(self, index: int) -> dict:
        return {"img_path": self[index]}


def test_one_file_for_each_image(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    paths = [str(tmp_path / "data" / name) for name in ("a/x.png", "b/x.png", "b/gone.png")]
    for path in paths[:2]:
        Path(path).parent.mkdir(parents=True)
        Image.new("RGB", (30, 20), "gray").save(path)
    loader = SimpleNamespace(dataset=Images(paths))
    runner: Any = SimpleNamespace(test_dataloader=loader, logger=logging.getLogger("test"))
    hook = OverlayHook(tmp_path / "out", opacity=1)
    hook.before_test(runner)
    labels = torch.zeros(1, 20, 30, dtype=torch.int64)
    for path in paths:
        sample = SegDataSample(
            metainfo={"img_path": path},
            gt_sem_seg=PixelData(data=labels + 255),
            pred_sem_seg=PixelData(data=labels),
        )
        hook.after_test_iter(runner, 0, outputs=[sample])
    files = sorted(p.relative_to(tmp_path / "out") for p in (tmp_path / "out").rglob("*.jpg"))
    assert files == [Path("a/x.jpg"), Path("b/x.jpg")]
    painted = np.asarray(Image.open(tmp_path / "out" / "a" / "x.jpg")).astype(int)
    assert np.abs(painted[:, :28] - 128).max() < 6  # ignored: nothing painted
    assert np.abs(painted[:, 32:] - 128).max() > 50
    assert "gone.png" in caplog.text
