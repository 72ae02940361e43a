"""Tiny datasets on disk."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

NAMES = ["sky", "road", "tree", "car"]


@pytest.fixture
def write_data(tmp_path) -> Callable[..., Path]:
    """Write images and label files, and return their root.

    Labels are (H, W) arrays; sample i gets the files images/i.png and labels/i.png.
    """

    def write(labels: list[np.ndarray], name: str = "data") -> Path:
        root = tmp_path / name
        (root / "images").mkdir(parents=True)
        (root / "labels").mkdir()
        rng = np.random.default_rng(0)
        for i, label in enumerate(labels):
            image = rng.integers(0, 256, (*label.shape, 3), dtype=np.uint8)
            Image.fromarray(image).save(root / "images" / f"{i}.png")
            Image.fromarray(label.astype(np.uint8)).save(root / "labels" / f"{i}.png")
        return root

    return write


@pytest.fixture
def config_of() -> Callable[..., dict]:
    """The config of a plain mmseg dataset of four classes in a root."""

    def config(root: Path, **changes) -> dict:
        pipeline = [
            dict(type="LoadImageFromFile"),
            dict(type="LoadAnnotations"),
            dict(type="PackSegInputs"),
        ]
        return {
            **dict(type="BaseSegDataset", data_root=str(root), img_suffix=".png"),
            **dict(data_prefix=dict(img_path="images", seg_map_path="labels")),
            **dict(metainfo=dict(classes=list(NAMES)), pipeline=pipeline),
            **dict(serialize_data=False),  # serializing collects garbage, half a second each time
            **changes,
        }

    return config


@pytest.fixture
def label_of() -> Callable[[dict], np.ndarray]:
    """The label map (H, W) of a packed sample."""
    return lambda sample: sample["data_samples"].gt_sem_seg.data[0].numpy()
