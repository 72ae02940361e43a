from __future__ import annotations

import runpy
import sys
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmseg.apis import MMSegInferencer, inference_model, init_model
from PIL import Image

from mmseg_otseg.apis import OTSegInferencer

TOOL = Path(__file__).parents[2] / "tools" / "segment.py"


@pytest.fixture
def inferencer(config: Config, weights: str) -> OTSegInferencer:
    return OTSegInferencer(config, weights, device="cpu")


def test_folder_with_a_broken_picture(
    inferencer: OTSegInferencer, pictures: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    result = inferencer(pictures, classes=["cat", "zebra"], out_dir=str(out), return_vis=True)
    assert [mask.shape for mask in result["predictions"]] == [(64, 80), (70, 64), (64, 64)]
    assert result["classes"] == ("cat", "zebra")
    assert result["skipped"] == [str(pictures / "1b.jpg")]
    assert len(result["visualization"]) == 3
    assert sorted(path.name for path in (out / "pred").iterdir()) == ["0.png", "1.png", "2.png"]
    assert sorted(path.name for path in (out / "vis").iterdir()) == ["0.jpg", "1.jpg", "2.jpg"]
    mask = np.array(Image.open(out / "pred" / "1.png"))
    assert np.array_equal(mask, result["predictions"][1])


def test_batches_paths_and_arrays(inferencer: OTSegInferencer, pictures: Path) -> None:
    paths = [str(pictures / "0.jpg"), pictures / "gone.jpg", pictures / "2.jpg"]
    arrays = [cv2.imread(str(pictures / f"{index}.jpg")) for index in (0, 2)]
    first = inferencer(paths, classes=["cat", "dog"], batch_size=2)
    assert first["skipped"] == [str(pictures / "gone.jpg")]
    second = inferencer(arrays)
    assert second["classes"] == ("cat", "dog")
    for one, other in zip(first["predictions"], second["predictions"], strict=True):
        assert np.array_equal(one, other)
    assert inferencer(arrays[0])["predictions"].shape == arrays[0].shape[:2]


def test_none_of_these(inferencer: OTSegInferencer, pictures: Path, tmp_path: Path) -> None:
    path = str(pictures / "0.jpg")
    sample = inferencer(path, classes=["cat", "dog"], return_datasamples=True)
    best = sample.seg_logits.data.amax(0)
    threshold = float(best.median())
    result = inferencer(path, none_below=threshold, out_dir=str(tmp_path / "out"))
    assert result["classes"] == ("cat", "dog", "none of these")
    none = torch.from_numpy(result["predictions"] == 2)
    assert torch.equal(none, best < threshold) and none.any()
    assert inferencer(path)["classes"] == ("cat", "dog")


def test_many_classes(inferencer: OTSegInferencer, pictures: Path, tmp_path: Path) -> None:
    names = [f"thing {index}" for index in range(300)]
    result = inferencer(str(pictures / "0.jpg"), classes=names, out_dir=str(tmp_path / "out"))
    written = np.array(Image.open(tmp_path / "out" / "pred" / "0.png"))
    assert np.array_equal(written, result["predictions"])
    one = inferencer(str(pictures / "0.jpg"), classes=["cat"])
    assert not one["predictions"].any()


def test_wrong_inputs(inferencer: OTSegInferencer, pictures: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"none of the 1 pictures.*gone\.jpg"):
        inferencer(str(pictures / "gone.jpg"))
    with pytest.raises(ValueError, match="no picture to segment"):
        inferencer([])
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match="holds no picture"):
        inferencer(tmp_path / "empty")
    for names, message in ([], "no class"), (["a", "a"], "more than once"):
        with pytest.raises(ValueError, match=message):
            inferencer(str(pictures / "0.jpg"), classes=names)


def test_mmsegs_own_tools(config: Config, weights: str, pictures: Path, tmp_path: Path) -> None:
    path = str(pictures / "0.jpg")
    config.dump(str(tmp_path / "config.py"))
    stock = MMSegInferencer(str(tmp_path / "config.py"), weights, device="cpu")
    expected = OTSegInferencer(config, weights, device="cpu")(path)["predictions"]
    assert np.array_equal(stock(path)["predictions"], expected)
    model = init_model(config, weights, device="cpu")
    assert np.array_equal(inference_model(model, path).pred_sem_seg.data[0].numpy(), expected)


def run_tool(monkeypatch: pytest.MonkeyPatch, *arguments: Any) -> None:
    monkeypatch.setattr(sys, "argv", [str(TOOL), *map(str, arguments)])
    runpy.run_path(str(TOOL), run_name="__main__")


def test_command_line(
    config: Config,
    weights: str,
    pictures: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture,
) -> None:
    config.dump(str(tmp_path / "config.py"))
    fixed = ["--model", tmp_path / "config.py", "--out", tmp_path / "out", "--device", "cpu"]
    options = [*fixed, "--weights", weights]
    run_tool(monkeypatch, pictures, "--classes", "cat, potted plant", *options)
    assert sorted(path.name for path in (tmp_path / "out" / "pred").iterdir())[0] == "0.png"
    for arguments, message in (
        ([pictures, "--classes", "cat,,dog", *options], "class name is empty"),
        ([pictures, "--classes", "", *options], "class name is empty"),
        ([pictures, "--classes", "cat,cat", *options], "more than once"),
        ([tmp_path / "gone.jpg", *options], "gone.jpg"),
        ([pictures, *fixed, "--weights", tmp_path / "no.pth"], "no.pth does not exist"),
        ([pictures, *fixed, "--weights", pictures / "notes.txt"], "cannot be read as a checkpoint"),
    ):
        with pytest.raises(SystemExit):
            run_tool(monkeypatch, *arguments)
        assert message in capsys.readouterr().err
