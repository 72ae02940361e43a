from __future__ import annotations

import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest
from mmengine.config import Config
from mmseg_otseg_cli.errors import CommandError

from tests.helpers.run_tools import last_metrics, run_tool
from tests.helpers.shapes_run import SHAPES, tiny_options
from tests.helpers.tiny_run import tiny_config, train_tiny


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of tiny.py and of the run that it trained."""
    return train_tiny(tmp_path_factory.mktemp("trained"))


@pytest.fixture
def test_tool(trained: Path, tmp_path: Path):
    """Run the tool on the trained run; returns the metrics."""

    def run(*options: object, config: Path = trained / "tiny.py") -> dict[str, float]:
        checkpoint = trained / "run" / "iter_4.pth"
        run_tool("test", config, checkpoint, "--work-dir", tmp_path / "test", *options)
        return last_metrics(tmp_path / "test")

    return run


def test_the_checkpoint_has_the_metrics_of_its_validation(test_tool, trained: Path) -> None:
    validated = last_metrics(trained / "run")
    tested = test_tool()
    assert {name: tested[name] for name in ("aAcc", "mIoU", "mAcc")} == {
        name: validated[name] for name in ("aAcc", "mIoU", "mAcc")
    }


def test_writes_label_maps_and_overlays(test_tool, tmp_path: Path) -> None:
    test_tool("--out", tmp_path / "labels", "--show-dir", tmp_path / "drawn")
    label = cv2.imread(str(tmp_path / "labels" / "0.png"), cv2.IMREAD_UNCHANGED)
    assert label.shape == (32, 32) and label.max() <= 2
    overlays = sorted((tmp_path / "drawn").iterdir())
    assert [path.name for path in overlays] == ["0.jpg", "1.jpg", "2.jpg", "3.jpg"]
    painted = cv2.imread(str(overlays[0]))
    assert painted.shape == (32, 64, 3)  # labels beside predictions
    assert np.abs(painted[:, :32].astype(int) - painted[:, 32:]).mean() > 1


def test_augments_data_that_are_wrapped_too(test_tool, trained: Path, tmp_path: Path) -> None:
    cfg = Config.fromfile(trained / "tiny.py")
    inner = cfg.test_dataloader.dataset
    cfg.test_dataloader.dataset = dict(
        type="RepeatDataset", times=1, dataset=dict(type="ConcatDataset", datasets=[inner])
    )
    cfg.dump(tmp_path / "wrapped.py")
    augmented = test_tool("--tta")["mIoU"]
    assert augmented != test_tool()["mIoU"]
    assert test_tool("--tta", config=tmp_path / "wrapped.py")["mIoU"] == augmented


def test_label_maps_never_overwrite_each_other(trained: Path, test_tool, tmp_path: Path) -> None:
    data = tmp_path / "data"
    for kind in ("images", "labels"):
        for folder in ("a", "b"):
            shutil.copytree(trained / kind / "val", data / kind / "val" / folder)
    cfg = tiny_config(trained)
    cfg.test_dataloader.dataset.data_root = str(data)
    cfg.dump(tmp_path / "folders.py")
    test_tool(config=tmp_path / "folders.py")
    with pytest.raises(ValueError, match=r"a/0\.png .*b/0\.png.*--out"):
        test_tool("--out", tmp_path / "maps", config=tmp_path / "folders.py")


def test_a_model_with_nothing_to_train_needs_no_checkpoint(trained: Path, tmp_path: Path) -> None:
    options = ("--work-dir", tmp_path / "test", *tiny_options())
    run_tool("test", SHAPES / "sclip.py", *options)
    assert "hIoU" in last_metrics(tmp_path / "test")
    with pytest.raises(CommandError, match="checkpoint"):
        run_tool("test", trained / "tiny.py", "--work-dir", tmp_path / "test")
