from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from mmseg.registry import MODELS

from mmseg_otseg.checks.clip import PatchCheck
from mmseg_otseg.datasets.shapes import SHAPES_CLASSES, render_scene
from tests.helpers.run_tools import run_tool
from tests.helpers.shapes_run import SHAPES, tiny_config, tiny_options

TOOL = "analysis/check_clip"
WEIGHTS = SHAPES / "clip" / "shapes_clip.safetensors"


@pytest.fixture(scope="module")
def check(tmp_path_factory: pytest.TempPathFactory) -> PatchCheck:
    """Of a CLIP that was trained on shapes."""
    cfg = tiny_config("training_free", tmp_path_factory.mktemp("run"))
    preprocessor = MODELS.build(cfg.model.data_preprocessor)
    clip = {**cfg.model.clip, "pretrained": str(WEIGHTS)}
    return PatchCheck(clip, SHAPES_CLASSES, preprocessor)


@pytest.fixture(scope="module")
def scenes() -> list[tuple[torch.Tensor, np.ndarray]]:
    found = [render_scene("val", index, 0) for index in range(20)]
    return [(torch.from_numpy(s.image[..., ::-1].copy()).permute(2, 0, 1), s.labels) for s in found]


def test_a_trained_clip_agrees_with_labels(check: PatchCheck, scenes: list) -> None:
    levels = check.on_labels(scenes)
    assert [level.layer for level in levels] == [0, 1, 2, 3]
    assert levels[-1].aligned and levels[-1].score > 2 * levels[-1].chance
    moved = [(image, np.where(labels < 20, (labels + 7) % 20, 255)) for image, labels in scenes]
    assert not check.on_labels(moved)[-1].aligned
    with pytest.raises(ValueError, match=r"label .* 19"):
        check.on_labels([(image, np.full_like(labels, 255)) for image, labels in scenes[:1]])


def test_and_with_the_global_score(check: PatchCheck, scenes: list) -> None:
    images = [image for image, _ in scenes]
    assert check.on_images(images)[-1].aligned
    with pytest.raises(ValueError, match=" 2 "):
        check.on_images(images[:1])


def test_the_tool(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    config = SHAPES / "otseg_plus.py"
    options = tiny_options(**{"model.clip.pretrained": str(WEIGHTS)})
    run_tool(TOOL, config, "--work-dir", tmp_path, "--number", 6, *options)
    printed = capsys.readouterr().out
    for word in ("open_clip's ViT, 4 layers", "GELU", "decode_head trains", "Patches and text"):
        assert word in printed
    scene = render_scene("val", 0, 0)
    for index in range(2):
        cv2.imwrite(str(tmp_path / f"{index}.png"), scene.image + index)
    arguments = ["--work-dir", tmp_path, "--images", tmp_path, "--classes", "red cross, blue ring"]
    run_tool(TOOL, config, *arguments, *tiny_options())
    assert "random" in capsys.readouterr().out
    with pytest.raises(SystemExit):
        run_tool(TOOL, config, "--classes", "cat")
