from __future__ import annotations

import re
from itertools import islice
from pathlib import Path

import cv2
import pytest

from mmseg_otseg.engine import ZeroShotRunner
from tests.helpers.otseg_run import otseg_config
from tests.helpers.tiny_run import write_images


def share(dataset, indices: list[int]) -> float:
    """Percent of the pixels of some samples with a seen class."""
    labels = [dataset[index]["data_samples"].gt_sem_seg.data for index in indices]
    seen = sum(int((label < 2).sum()) for label in labels)
    return 100 * seen / sum(label.numel() for label in labels)


def test_share_of_an_interval(tmp_path: Path) -> None:
    """Two iterations of two samples are one interval; its number is that of these four samples."""
    write_images(tmp_path)
    cfg = otseg_config(tmp_path, train_cfg=dict(max_iters=2, val_interval=2))
    cfg.default_hooks.logger.interval = 2
    runner = ZeroShotRunner.from_cfg(cfg)
    runner.train()
    runner.train_dataloader.sampler.skip(0)  # back to the first draw
    draws = list(islice(runner.train_dataloader.sampler, 4))
    assert all(isinstance(draw, tuple) for draw in draws)  # an index and a seed
    hub = runner.message_hub.get_scalar("train/seen_pixels")
    assert hub.current() == pytest.approx(share(runner.train_dataloader.dataset, draws))
    assert 0 < hub.current() < 100


def test_nothing_seen_is_said(tmp_path: Path, capfd: pytest.CaptureFixture) -> None:
    write_images(tmp_path)
    cfg = otseg_config(tmp_path, train_cfg=dict(max_iters=1, val_interval=2))
    # No pixel is of the one class that is seen.
    split = dict(classes=("left", "middle", "right"), unseen=["left", "middle", "right"][:2])
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
