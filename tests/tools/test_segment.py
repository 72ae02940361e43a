from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmseg.registry import MODELS
from PIL import Image

from tests.helpers.run_tools import run_tool
from tests.helpers.small_configs import small


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with config.py, w.pth and photos/."""
    folder = tmp_path_factory.mktemp("segment")
    config: Config = small("otseg/voc_512.py", folder)
    config.dump(str(folder / "config.py"))
    model: Any = MODELS.build(config.model)
    torch.save({"state_dict": model.state_dict(), "meta": {}}, folder / "w.pth")
    (folder / "photos" / "sub").mkdir(parents=True)
    for name in ("a.jpg", "b.png", "sub/c.gif"):
        image = np.random.default_rng(0).integers(0, 256, (40, 50, 3), dtype=np.uint8)
        Image.fromarray(image).save(folder / "photos" / name)
    (folder / "photos" / "broken.png").write_text("no image")
    return folder


@pytest.fixture
def segment(trained: Path, monkeypatch: pytest.MonkeyPatch):
    def call(*arguments: object, **options: object) -> None:
        given = {"model": "config.py", "weights": "w.pth", "out": "out", "device": "cpu", **options}
        named = [part for key, value in given.items() for part in (f"--{key}", value)]
        monkeypatch.chdir(trained)
        run_tool("segment", *arguments, *named)

    return call


def test_folders(segment, trained: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    out = tmp_path / "out"
    segment("photos", "photos/sub", "--classes", 'cat, "chair, wooden"', "--no-overlays", out=out)
    masks = sorted(str(path.relative_to(out)) for path in out.rglob("*") if path.is_file())
    masks = [name for name in masks if name not in ("classes.json", "summary.csv")]
    assert masks == ["pred/a.png", "pred/b.png", "pred/sub/c.png"]
    assert np.asarray(Image.open(out / "pred" / "a.png")).max() <= 1


@pytest.mark.parametrize(
    ("arguments", "options", "message"),
    [
        (["photos", "--classes", "cat,cat"], {}, "more than once"),
        (["photos/broken.png"], {}, r"broken\.png"),
        (["photos"], {"weights": "photos/a.jpg"}, "cannot be read as a checkpoint"),
    ],
)
def test_mistakes(
    arguments: list[str], options: dict[str, str], message: str, segment, trained: Path
) -> None:
    with pytest.raises((ValueError, OSError), match=message):
        segment(*arguments, **options)
