from __future__ import annotations

import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest
from mmengine.config import Config
from mmseg_otseg_cli.errors import CommandError

from mmseg_otseg.models import ZeroShotTTAModel
from tests.helpers.run_tools import last_metrics, run_tool
from tests.helpers.shapes_run import SHAPES, tiny_options


@pytest.fixture
def test_tool(trained_folder: Path, tmp_path: Path):
    """Run the tool on the trained run; returns the metrics."""

    def run(*options: object, config: Path = trained_folder / "tiny.py") -> dict[str, float]:
        checkpoint = trained_folder / "run" / "iter_4.pth"
        run_tool("test", config, checkpoint, "--work-dir", tmp_path / "test", *options)
        return last_metrics(tmp_path / "test")

    return run


def test_the_metrics_are_those_of_the_validation_and_predictions_are_written(
    test_tool, trained_folder: Path, tmp_path: Path
) -> None:
    validated = last_metrics(trained_folder / "run")
    tested = test_tool("--out", tmp_path / "labels", "--show-dir", tmp_path / "drawn")
    for name in ("pAcc", "mIoU", "hIoU"):
        assert tested[name] == validated[name]
    label = cv2.imread(str(tmp_path / "labels" / "val_0.png"), cv2.IMREAD_UNCHANGED)
    assert label.shape == (32, 32) and label.max() <= 2
    overlays = sorted((tmp_path / "drawn").glob("vis_data/vis_image/test_*.png"))
    assert [path.name[:14] for path in overlays] == [f"test_val_{i}.jpg" for i in range(4)]
    painted = cv2.imread(str(overlays[0]))
    assert painted.shape == (32, 64, 3)  # labels beside predictions
    assert np.abs(painted[:, :32].astype(int) - painted[:, 32:]).mean() > 1


def test_augmentation_predicts_several_views(test_tool, monkeypatch: pytest.MonkeyPatch) -> None:
    views, predict = [], ZeroShotTTAModel.test_step

    def counted(self: ZeroShotTTAModel, data: dict) -> list:
        views.append(len(data["inputs"]))
        return predict(self, data)

    monkeypatch.setattr(ZeroShotTTAModel, "test_step", counted)
    assert "mIoU" in test_tool("--tta")
    assert len(views) == 4 and min(views) > 1  # of each image


def test_label_maps_never_overwrite_each_other(
    trained_folder: Path, test_tool, tmp_path: Path
) -> None:
    data = tmp_path / "data"
    for kind in ("images", "labels"):
        for folder in ("a", "b"):
            shutil.copytree(trained_folder / kind / "val", data / kind / "val" / folder)
    cfg = Config.fromfile(trained_folder / "tiny.py")
    cfg.test_dataloader.dataset.dataset.data_root = str(data)
    cfg.dump(tmp_path / "folders.py")
    with pytest.raises(ValueError, match=r"a/val_0\.jpg .*b/val_0\.jpg.*--out"):
        test_tool("--out", tmp_path / "maps", config=tmp_path / "folders.py")


def test_a_model_with_nothing_to_train_needs_no_checkpoint(
    trained_folder: Path, tmp_path: Path
) -> None:
    options = ("--work-dir", tmp_path / "test", *tiny_options())
    run_tool("test", SHAPES / "sclip.py", *options)
    assert "hIoU" in last_metrics(tmp_path / "test")
    with pytest.raises(CommandError, match="checkpoint"):
        run_tool("test", trained_folder / "tiny.py", "--work-dir", tmp_path / "test")


def test_what_drawn_scenes_can_do_and_what_not(tmp_path: Path) -> None:
    options = ("--work-dir", tmp_path / "test", *tiny_options())
    run_tool("test", SHAPES / "sclip.py", "--tta", *options)
    assert "hIoU" in last_metrics(tmp_path / "test")
    with pytest.raises(CommandError, match="show-transport"):
        run_tool("test", SHAPES / "sclip.py", "--show-dir", tmp_path / "drawn", *options)
