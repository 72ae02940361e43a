"""The whole data check: with a CLIP that knows the images, and the sheet that it draws."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest
from mmengine.config import Config
from PIL import Image

from mmseg_otseg.checks import DataReport, check_data
from mmseg_otseg.datasets.shapes import SHAPES_CLASSES, render_scene
from tests.helpers.shapes_run import SHAPES

NAMES = list(SHAPES_CLASSES)


@pytest.fixture(scope="module")
def shapes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The shapes benchmark as two folders."""
    root = tmp_path_factory.mktemp("shapes")
    for subset, number in (("train", 1), ("val", 60)):
        for kind in ("images", "labels"):
            (root / kind / subset).mkdir(parents=True)
        for index in range(number):
            scene = render_scene(subset, index)
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


def test_names_in_another_order(shapes: Path) -> None:
    assert report_of(shapes, NAMES).can_train
    report = report_of(shapes, NAMES[1:] + NAMES[:1])
    (error,) = (text for level, text in report.findings if level == "error")
    assert not report.can_train and "another order" in error
    assert all(f"{index} {name}" in error for index, name in enumerate(NAMES[1:4], 1))


def test_the_sheet_comes_after_the_report_and_names_its_path(shapes: Path, tmp_path: Path) -> None:
    report = report_of(shapes, NAMES)
    assert report.draw_samples(tmp_path / "new" / "sheet.png")
    assert Image.open(tmp_path / "new" / "sheet.png").width > 300
    path = tmp_path / "new" / "sheet.png" / "below.png"
    with pytest.raises(OSError, match=str(path)):
        report.draw_samples(path)


def test_a_model_without_a_part_is_a_finding() -> None:
    cfg = Config.fromfile(SHAPES / "otseg_plus.py")
    cfg.model.pop("backbone")
    report = check_data(cfg)
    assert not report.can_train and "backbone" in report.findings[0].text
