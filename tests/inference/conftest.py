from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmseg.registry import MODELS

from tests.helpers.small_configs import small


@pytest.fixture
def config(request: pytest.FixtureRequest, tmp_path: Path) -> Config:
    return small(getattr(request, "param", "otseg/voc_512.py"), tmp_path)


@pytest.fixture
def model(config: Config) -> Any:
    torch.manual_seed(0)
    return MODELS.build(config.model).eval()


@pytest.fixture
def weights(model: Any, tmp_path: Path) -> str:
    """A checkpoint of the model, as a run saves it."""
    names = model.neck.text.split.classes
    meta = {"dataset_meta": {"classes": names, "palette": [[i, 0, 0] for i in range(len(names))]}}
    torch.save({"state_dict": model.state_dict(), "meta": meta}, tmp_path / "w.pth")
    return str(tmp_path / "w.pth")


@pytest.fixture
def images(tmp_path: Path) -> Path:
    """A folder of three good images, a truncated one and a text file."""
    folder = tmp_path / "images"
    folder.mkdir()
    rng = np.random.default_rng(0)
    for index, size in enumerate([(64, 80), (70, 64), (64, 64)]):
        image = rng.integers(0, 255, (*size, 3), dtype=np.uint8)
        cv2.imwrite(str(folder / f"{index}.jpg"), image)
    (folder / "1b.jpg").write_bytes((folder / "1.jpg").read_bytes()[:100])
    (folder / "notes.txt").write_text("not an image")
    return folder
