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
    assert masks == ["pred/a.png", "pred/b.png", "pred/sub/c.png"]
    assert np.asarray(Image.open(out / "pred" / "a.png")).max() <= 1


@pytest.mark.parametrize(
    ("arguments", "options", "message"),
    [
        (["photos", "--classes", "cat,,dog"], {}, "class name is empty"),
        (["photos", "--classes", "cat,cat"], {}, "more than once"),
        (["gone.jpg"], {}, r"gone\.jpg"),
        (["photos/broken.png"], {}, r"broken\.png"),
        (["photos"], {"weights": "no.pth"}, r"no\.pth does not exist"),
        (["photos"], {"weights": "photos/a.jpg"}, "cannot be read as a checkpoint"),
    ],
)
def test_mistakes(
    arguments: list[str], options: dict[str, str], message: str, segment, trained: Path
) -> None:
    with pytest.raises((ValueError, OSError), match=message):
        segment(*arguments, **options)


@pytest.mark.parametrize("option", ["--none-below=90", "--opacity=7", "--batch-size=0"])
def test_values_out_of_range(option: str, segment, capsys: pytest.CaptureFixture) -> None:
    with pytest.raises(SystemExit):
        segment("photos", option)
    assert option.partition("=")[0] in capsys.readouterr().err


def test_precision(segment, tmp_path: Path) -> None:
    for precision in ("fp32", "bf16"):
        segment("photos/a.jpg", precision=precision, out=tmp_path / precision)
    masks = [np.asarray(Image.open(tmp_path / p / "pred" / "a.png")) for p in ("fp32", "bf16")]
    assert (masks[0] == masks[1]).mean() > 0.5  # random weights: classes are close to each other
