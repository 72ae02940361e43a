"""The whole data check: with a CLIP that knows the images, and the sheet that it draws."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from mmengine.config import Config
from PIL import Image

from mmseg_otseg.checks import DataReport, check_data
from mmseg_otseg.checks.data import largest
from mmseg_otseg.datasets.shapes import SHAPES_CLASSES, render_scene
from tests.helpers.shapes_run import SHAPES

NAMES = list(SHAPES_CLASSES)


def test_the_images_in_which_a_class_is_largest() -> None:
    pixels = np.zeros(10, np.uint32)
    pixels[3] = 250
    assert largest(pixels) == [3]
    assert largest(np.array([5, 0, 7, 6], np.uint32), 2) == [2, 3]


@pytest.fixture(scope="module")
def shapes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The shapes benchmark as two folders."""
    root = tmp_path_factory.mktemp("shapes")
    for subset, number in (("train", 1), ("val", 60)):
        for kind in ("images", "labels"):
            (root / kind / subset).mkdir(parents=True)
        for index in range(number):
            scene = render_scene("clean", subset, index)
            Image.fromarray(scene.image).save(root / "images" / subset / f"{index}.png")
            Image.fromarray(scene.labels).save(root / "labels" / subset / f"{index}.png")
    return root


def report_of(root: Path, names: Sequence[str]) -> DataReport:
    steps = [dict(type=f"{name}") for name in ("LoadImageFromFile", "LoadAnnotations")]

    def loader(subset: str) -> dict:
        folder = dict(
            type="FolderDataset", data_root=str(root), subset=subset, test_mode=subset == "val"
        )
        pipeline = [*steps, dict(type="PackSegInputs")]
        return dict(dataset=dict(type="ZeroShotDataset", dataset=folder, pipeline=pipeline))

    model = Config.fromfile(SHAPES / "otseg_plus.py").model
    model.clip.pretrained = str(SHAPES / "clip" / "shapes_clip.safetensors")
    model.split = dict(classes=list(names), unseen=list(names[:2]))
    cfg = dict(model=model, train_dataloader=loader("train"), val_dataloader=loader("val"))
    return check_data(Config(cfg))


@pytest.mark.parametrize(
    ("names", "words"),
    [
        (NAMES, None),
        (NAMES[1:] + NAMES[:1], "1 place earlier"),
        (NAMES[5:] + NAMES[:5], "5 places earlier"),
        (NAMES[::-1], "in reverse"),
        (sorted(NAMES), "another order"),
    ],
)
def test_the_order_of_the_names(shapes: Path, names: list[str], words: str | None) -> None:
    report = report_of(shapes, names)
    errors = [text for level, text in report.findings if level == "error"]
    assert report.can_train == (not errors) == (words is None), errors
    for text in errors:
        assert words and words in text
        assert all(f"{index} {name}" in text for index, name in enumerate(NAMES[1:4], 1))


def test_the_sheet_comes_after_the_report_and_names_its_path(shapes: Path, tmp_path: Path) -> None:
    report = report_of(shapes, NAMES)
    assert report.draw_sheet(tmp_path / "new" / "sheet.png")
    assert Image.open(tmp_path / "new" / "sheet.png").width > 300
    for path in (Path("/dev/full/sheet.png"), tmp_path / "new" / "sheet.png" / "below.png"):
        with pytest.raises(OSError, match=str(path)):
            report.draw_sheet(path)
    (tmp_path / "full.png").symlink_to("/dev/full")
    with pytest.raises(OSError, match=r"full\.png.*[Nn]o space"):
        report.draw_sheet(tmp_path / "full.png")


def test_a_model_without_a_part_is_a_finding() -> None:
    cfg = Config.fromfile(SHAPES / "otseg_plus.py")
    cfg.model.pop("backbone")
    report = check_data(cfg)
    assert not report.can_train and "backbone" in report.findings[0].text
