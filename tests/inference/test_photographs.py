"""Names in, masks out: photographs and names, and neither a checkpoint nor masks."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from mmseg_otseg.errors import UserError
from mmseg_otseg.imaging import class_list
from mmseg_otseg.inference import OTSegInferencer
from mmseg_otseg.inference.segmenter import MAX_VALUES, check_memory, same_embedding_warning
from mmseg_otseg.models import load_clip
from mmseg_otseg.ops import refine
from tests.helpers.paths import ROOT
from tests.helpers.run_tools import run_tool
from tests.helpers.small_configs import small
from tests.helpers.tiny_clip import save_archive, tiny_clip

NAMES = "road, car, tree | trees, sky"


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Three photographs: the left half of each is dark, the right half bright."""
    folder = tmp_path / "photos"
    folder.mkdir()
    rng = np.random.default_rng(0)
    for name in "abc":
        image = rng.integers(0, 60, (72, 96, 3), dtype=np.uint8)
        image[:, 48:] += 180
        Image.fromarray(image).save(folder / f"{name}.png")
    return folder


@pytest.fixture
def config(tmp_path: Path) -> Path:
    small("training_free/names.py", tmp_path).dump(tmp_path / "names.py")
    return tmp_path / "names.py"


@pytest.fixture
def segment(config: Path, tmp_path: Path) -> Callable[..., Path]:
    def call(*arguments: object) -> Path:
        out = tmp_path / "out"
        inputs = [tmp_path / "photos", "--classes", NAMES, "--model", config]
        run_tool("segment", *inputs, "--out", out, "--device", "cpu", *arguments)
        return out

    return call


def masks_of(folder: Path) -> np.ndarray:
    return np.stack([np.asarray(Image.open(file)) for file in sorted(folder.rglob("*.png"))])


@pytest.fixture
def weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Weights in CLIP_WEIGHTS for the installed config, of a smaller architecture than its own."""
    save_archive(tmp_path / "clip.pt", load_clip(tiny_clip(image_size=224)))
    monkeypatch.setenv("CLIP_WEIGHTS", str(tmp_path / "clip.pt"))
    monkeypatch.setattr("open_clip.get_model_config", lambda name: tiny_clip(image_size=224))


@pytest.mark.usefixtures("weights")
def test_one_command(photos: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    run_tool("segment", photos, "--classes", NAMES, "--out", out, "--device", "cpu")
    key = json.loads((out / "classes.json").read_text())
    assert [entry["name"] for entry in key["classes"]] == ["road", "car", "tree", "sky"]
    assert key["refine"] and key["clip"]["pretrained"] == str(tmp_path / "clip.pt")
    found = OTSegInferencer(device="cpu")(photos, classes=NAMES)["predictions"]
    assert np.array_equal(masks_of(out / "pred"), np.stack(found))


@pytest.mark.usefixtures("weights", "photos")
def test_the_notebook(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MPLBACKEND", "agg")
    text = (ROOT / "configs" / "training_free" / "photographs.ipynb").read_text(encoding="utf-8")
    cells: dict[str, Any] = {}
    for cell in json.loads(text)["cells"]:
        assert not cell.get("outputs")
        if cell["cell_type"] == "code":
            exec("".join(cell["source"]), cells)
    assert masks_of(tmp_path / "masks" / "pred").shape == (3, 72, 96)
    assert len(class_list(tmp_path / "own_data" / "classes.txt")) == 5


def test_options(photos: Path, segment: Callable[..., Path]) -> None:
    plain = masks_of(segment("--no-refine") / "pred")
    refined = segment("--refine")
    assert json.loads((refined / "classes.json").read_text())["refine"]
    assert (masks_of(refined / "pred") != plain).any()
    settings = ("--cfg-options", "model.test_cfg.refine=False", "model.decode_head.scale=40")
    assert np.array_equal(masks_of(segment(*settings) / "pred"), plain)
    nothing = masks_of(segment("--none-below", "1", "--precision", "bf16") / "pred")
    assert (nothing == 4).all()
    with pytest.raises(FileNotFoundError, match=r"gone\.safetensors"):
        segment("--clip", "ViT-B-32", "--clip-weights", "gone.safetensors")
    with pytest.raises(UserError, match="'gpu'"):
        segment("--device", "gpu")


def test_what_is_missing_on_the_command_line(
    photos: Path, capsys: pytest.CaptureFixture, tmp_path: Path
) -> None:
    for arguments in ([], ["--classes", "cat", "--weights", "w.pth"]):
        with pytest.raises(SystemExit):
            run_tool("segment", photos, "--out", tmp_path / "out", *arguments)
        assert "--model" in capsys.readouterr().err
    config = tmp_path / "trained.py"
    small("otseg/voc_512.py", tmp_path).dump(config)
    for arguments in ([], ["--classes", "cat"]):
        with pytest.raises(ValueError, match="--weights"):
            run_tool("segment", photos, "--out", tmp_path / "out", "--model", config, *arguments)
    with pytest.raises(ValueError, match="--weights"):
        run_tool("web_demo", "--model", config)
    options = ["--out", tmp_path / "out", "--model", "shapes/training_free"]
    run_tool("segment", photos, *options)  # inherits from a config that trains
    assert len(masks_of(tmp_path / "out" / "pred")) == 3


@pytest.mark.parametrize("out", ["taken", "taken/masks"])
def test_what_cannot_work_is_told_before_the_model_is_loaded(
    photos: Path, tmp_path: Path, out: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mmseg_otseg_cli.segment.model_of_config", None)
    (tmp_path / "taken").touch()
    with pytest.raises(ValueError, match="taken is no folder"):
        run_tool("segment", photos, "--classes", "cat", "--out", tmp_path / out)
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="holds no image"):
        run_tool("segment", tmp_path / "empty", "--classes", "cat", "--out", tmp_path / "masks")


def test_data_to_correct_and_train_with(
    photos: Path, segment: Callable[..., Path], tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    out = segment("--layout", "own_data", "--format", "coco", "--none-below", "0.25")
    assert class_list(out / "classes.txt") == ["road", "car", "tree", "sky"]
    assert (out / "annotations.json").is_file()
    small("own_data/otseg_512.py", tmp_path).dump(tmp_path / "own.py")
    settings = (
        f"data_root={out}",
        f"model.split.classes={out / 'classes.txt'}",
        "model.split.unseen=[sky]",
    )
    work_dir = ("--work-dir", tmp_path / "checked")
    run_tool("check_data", tmp_path / "own.py", *work_dir, "--cfg-options", *settings)
    assert "training makes sense" in capsys.readouterr().out


def test_a_trained_method_refines(tmp_path: Path) -> None:
    inferencer = OTSegInferencer(small("zegot/voc_512.py", tmp_path), device="cpu")
    image = np.random.default_rng(0).integers(0, 256, (64, 80, 3), dtype=np.uint8)
    plain, refined = (inferencer.inspect(image, "road, car", how).values for how in (False, True))
    pixels = torch.from_numpy(image).permute(2, 0, 1)[None].float()
    expected = refine(torch.from_numpy(plain)[None], pixels)[0].numpy()
    np.testing.assert_allclose(refined, expected, atol=1e-5)
    assert np.abs(refined - plain).max() > 1e-4


def test_names_that_clip_does_not_tell_apart(
    photos: Path, config: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    table = np.eye(3, dtype=np.float32)[[0, 1, 1, 2]][:, None]
    assert (
        "some of these names apart" in (text := same_embedding_warning("abcd", table))
        and "b, c" in text
    )
    assert "any of these names apart" in same_embedding_warning("bc", table[1:3])
    assert (
        same_embedding_warning("abd", table[[0, 1, 3]])
        == same_embedding_warning("a", table[:1])
        == ""
    )
    monkeypatch.setattr("mmseg_otseg.inference.segmenter.SAME_COSINE", -1)
    inferencer = OTSegInferencer(config, device="cpu")
    inferencer(photos, classes=NAMES)
    assert "any of these names apart" in caplog.text
    look = inferencer.inspect(photos / "a.png", NAMES)
    assert "any of these names" in look.warning and look.prompts == ("prompt 1",)  # an average


def test_the_memory_has_a_ceiling(photos: Path, config: Path, monkeypatch: Any) -> None:
    check_memory(171, (336, 448))
    with pytest.raises(ValueError, match=f"at most {MAX_VALUES // 1000**2} names"):
        check_memory(1000, (1000, 1000))
    monkeypatch.setattr("mmseg_otseg.inference.segmenter.MAX_VALUES", 1000)
    with pytest.raises(ValueError, match="memory"):
        OTSegInferencer(config, device="cpu")(photos, classes=NAMES)
