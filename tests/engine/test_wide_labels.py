"""Training and validation on label files of 16 bits."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from mmengine.config import Config
from PIL import Image
from torch import Tensor

from mmseg_otseg.engine import ZeroShotRunner, resolve
from tests.helpers.small_configs import small

USED = np.array([0, 200, 253, 254, 255, 256, 299, 65535])  # of 300 classes; the last is ignored


@pytest.fixture
def config(tmp_path: Path) -> Config:
    """OTSeg on 300 classes of which 255 and 256 are unseen, in crops that need padding."""
    rng = np.random.default_rng(0)
    root = tmp_path / "data" / "own"
    for subset in ("train", "val"):
        for kind in ("images", "labels"):
            (root / kind / subset).mkdir(parents=True)
        for index in range(2):
            label = rng.choice(USED, (3, 4)).astype(np.uint16).repeat(13, 0).repeat(14, 1)
            image = rng.integers(0, 256, (*label.shape, 3), dtype=np.uint8)
            Image.fromarray(label).save(root / "labels" / subset / f"{index}.png")
            Image.fromarray(image).save(root / "images" / subset / f"{index}.png")
    cfg = small("own_data/otseg_512.py", tmp_path)
    cfg.model.split = dict(classes=[f"class {i}" for i in range(300)], unseen=[255, 256])
    cfg.data_root, cfg.compile = str(root), False
    return cfg


def test_training(config: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is hidden, padded or left out is no class, and pseudo labels take its place."""
    config.train_dataloader.dataset.setting = "transductive"
    config.default_hooks.self_training = dict(type="SelfTrainingHook", begin=1)
    pipeline = config.train_dataloader.dataset.pipeline
    pipeline.remove(next(step for step in pipeline if step.type == "RandomResize"))  # so it pads
    runner = ZeroShotRunner.from_cfg(config)
    head: Any = runner.model.decode_head
    found: set[int] = set()
    loss = head.loss

    def record(inputs: Any, samples: Any, *args: Any) -> dict[str, Tensor]:
        found.update(v for sample in samples for v in sample.gt_sem_seg.data.unique().tolist())
        return loss(inputs, samples, *args)

    monkeypatch.setattr(head, "loss", record)
    runner.train()
    assert found == {*USED.tolist()} - {255, 256} | {65536}
    assert runner.message_hub.get_scalar("val/mIoU_U").current() >= 0


def test_padding_is_no_class(config: Config) -> None:
    assert resolve(config).model.data_preprocessor.seg_pad_val == 65535
    config.model.split = dict(classes=[f"class {i}" for i in range(254)], unseen=[0])
    assert resolve(config).model.data_preprocessor.seg_pad_val == 255
