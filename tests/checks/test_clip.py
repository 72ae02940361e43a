"""Whether a CLIP's patches agree with its text, with the tiny CLIP that knows the shapes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from mmseg.registry import MODELS

from mmseg_otseg.checks.clip import patch_agreement
from mmseg_otseg.datasets.shapes import SHAPES_CLASSES, render_scene
from mmseg_otseg.models import CLIPBackbone, TemplatePrompts
from tests.helpers.run_tools import run_tool
from tests.helpers.shapes_run import SHAPES, tiny_config, tiny_options

TOOL = "analysis/check_clip"
WEIGHTS = SHAPES / "clip" / "shapes_clip.safetensors"


def test_a_trained_clip_agrees_with_labels(tmp_path: Path) -> None:
    cfg = tiny_config("training_free", tmp_path)
    preprocessor = MODELS.build(cfg.model.data_preprocessor)
    clip = {**cfg.model.clip, "pretrained": str(WEIGHTS)}
    text = TemplatePrompts(clip, dict(classes=SHAPES_CLASSES), average=True)()[:, 0]
    backbone = CLIPBackbone(clip).eval()
    scenes = [render_scene("val", index) for index in range(20)]
    images = [torch.from_numpy(s.image[..., ::-1].copy()).permute(2, 0, 1) for s in scenes]

    def beaten(labels: list[np.ndarray]) -> list[float]:
        levels = patch_agreement(backbone, text, preprocessor, zip(images, labels))
        assert [level.layer for level in levels] == [0, 1, 2, 3]
        return [level.beaten for level in levels]

    right = [scene.labels for scene in scenes]
    assert beaten(right)[-1] == 1
    assert beaten([np.where(label < 20, (label + 7) % 20, 255) for label in right])[-1] < 0.99
    with pytest.raises(ValueError, match=r"label .* 19"):
        beaten([np.full_like(label, 255) for label in right])


def test_the_tool(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    config = SHAPES / "otseg_plus.py"
    options = tiny_options(**{"model.clip.pretrained": str(WEIGHTS)})
    run_tool(TOOL, config, "--work-dir", tmp_path, "--number", 6, *options)
    printed = capsys.readouterr().out
    for word in ("open_clip's ViT, 4 layers", "GELU", "decode_head trains", "Patches and text"):
        assert word in printed
    run_tool(TOOL, config, "--work-dir", tmp_path, "--number", 2, *tiny_options())
    assert "random" in capsys.readouterr().out
