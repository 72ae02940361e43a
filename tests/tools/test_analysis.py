"""The analysis tools on runs of a second."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmseg.registry import MODELS
from mmseg_otseg_cli.get_flops import measure

from mmseg_otseg.engine import ZeroShotRunner
from mmseg_otseg.errors import UserError
from tests.helpers.run_tools import run_tool
from tests.helpers.shapes_run import SHAPES, tiny_config, tiny_options

CALIBRATE, SHOW = "analysis/calibrate_seen_bias", "analysis/show_transport"


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    """Weights that predict seen and unseen classes."""
    model = MODELS.build(tiny_config("otseg_plus", tmp_path).model)
    torch.save({"state_dict": model.state_dict()}, tmp_path / "weights.pth")
    return tmp_path / "weights.pth"


def test_the_calibrated_bias_is_the_best_and_travels_in_the_checkpoint(
    checkpoint: Path, tmp_path: Path, capfd: pytest.CaptureFixture
) -> None:
    before = torch.load(checkpoint)["state_dict"]
    arguments = [SHAPES / "otseg_plus.py", checkpoint, "--work-dir", tmp_path / "out"]
    with pytest.raises(UserError, match="nowhere"):  # before the work, not after it
        run_tool(CALIBRATE, *arguments, "--write", "nowhere/best.pth", *tiny_options())
    run_tool(CALIBRATE, *arguments, "--write", *tiny_options())
    report = json.loads((tmp_path / "out" / "seen_bias.json").read_text())
    assert f"stored in {checkpoint}" in capfd.readouterr().out
    near = [row for row in report["table"] if row["seen_bias"] in (-0.02, 0.0, 0.02)]
    for row in near:  # each is what a run measures
        cfg = tiny_config("otseg_plus", tmp_path / "runs", load_from=str(checkpoint))
        cfg.model.decode_head.seen_bias = row["seen_bias"]
        cfg.experiment_name = f"bias {row['seen_bias']}"
        assert {"seen_bias": row["seen_bias"], **ZeroShotRunner.from_cfg(cfg).val()} == row
    best = max(report["table"], key=lambda row: row["hIoU"])
    assert report["best"]["hIoU"] == best["hIoU"] and len({row["mIoU_U"] for row in near}) > 1
    best = report["best"]

    after = torch.load(checkpoint)["state_dict"]
    assert after.pop("decode_head.calibrated_seen_bias.ensemble").item() == best["seen_bias"]
    assert after.keys() == before.keys()
    assert all(torch.equal(after[key], value) for key, value in before.items())
    cfg = tiny_config("otseg_plus", tmp_path / "run", load_from=str(checkpoint))
    assert ZeroShotRunner.from_cfg(cfg).val()["hIoU"] == best["hIoU"]
    assert f" {best['seen_bias']:g}, calibrated" in "".join(capfd.readouterr())


def test_sheets_of_samples(checkpoint: Path, tmp_path: Path) -> None:
    sheet, plans = tmp_path / "new" / "sheet.png", tmp_path / "new" / "sheet_plans.png"
    run_tool(SHOW, SHAPES / "otseg_plus.py", checkpoint, "--out", sheet, *tiny_options())
    assert min(cv2.imread(str(file)).shape[0] for file in (sheet, plans)) > 400  # four rows


@pytest.mark.parametrize("config", ["training_free", "zegclip"])
def test_sheets_of_images_from_files(config: str, tmp_path: Path) -> None:
    image = np.random.default_rng(0).integers(0, 255, (48, 80, 3), dtype=np.uint8)
    cv2.imwrite(str(tmp_path / "image.png"), image)
    arguments = ["--images", tmp_path / "image.png", "--out", tmp_path / "sheet.png"]
    run_tool(SHOW, SHAPES / f"{config}.py", *arguments, *tiny_options())
    assert cv2.imread(str(tmp_path / "sheet.png")) is not None
    assert (tmp_path / "sheet_plans.png").exists() == (config != "zegclip")


def test_counts_of_the_backbone_are_those_of_the_formulas(
    capsys: pytest.CaptureFixture[str],
) -> None:
    run_tool("analysis/get_flops", SHAPES / "otseg.py", "--shape", "64")
    assert "decode_head" in capsys.readouterr().out
    counts = measure(Config.fromfile(SHAPES / "otseg.py"), [64])["backbone"]
    width, layers, prompts, patches = 128, 4, 4, 8 * 8
    tokens = 1 + prompts + patches
    feed_forward, projections = 8 * width**2 * tokens * layers, 4 * width**2 * tokens * layers
    products = 2 * tokens**2 * width * layers
    around = patches * 3 * 8 * 8 * width + prompts * layers * width**2
    joint = (1 + patches) * width * 64
    attention = projections + products
    assert counts["multiply_adds"] == feed_forward + attention + around + joint
    # Prompts, their projection, a norm.
    trainable = prompts * layers * width + width * width + width + 2 * width
    assert counts["trainable"] == trainable
