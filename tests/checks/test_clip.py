"""What CLIP says of names, regions and patches, with the tiny CLIP that knows the shapes."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmseg.registry import MODELS
from PIL import Image

from mmseg_otseg.checks import DataReport, check_data
from mmseg_otseg.checks.clip import check_clip, patch_agreement
from mmseg_otseg.checks.names import compare_names, order_findings
from mmseg_otseg.datasets.shapes import SHAPES_CLASSES, render_scene
from mmseg_otseg.models import CLIPBackbone, TemplatePrompts
from tests.helpers.run_tools import run_tool
from tests.helpers.shapes_run import SHAPES, tiny_config, tiny_options

TOOL = "analysis/check_clip"
WEIGHTS = SHAPES / "clip" / "shapes_clip.safetensors"


NAMES = list(SHAPES_CLASSES)
CLIP: dict[str, Any] = Config.fromfile(SHAPES / "clip" / "shapes_clip.py").clip


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


def test_embeddings_from_a_file_are_the_ones_compared(tmp_path: Path) -> None:
    cfg = tiny_config("training_free", tmp_path)
    cfg.model.clip.pretrained = str(WEIGHTS)
    text = TemplatePrompts(cfg.model.clip, dict(classes=SHAPES_CLASSES), average=True)()

    def beaten(rows: torch.Tensor) -> float:
        np.save(tmp_path / "text.npy", rows.numpy())
        cfg.model.neck.text = dict(type="PrecomputedPrompts", path=str(tmp_path / "text.npy"))
        return check_clip(cfg, 20).levels[-1].beaten

    assert beaten(text) > 0.99 > beaten(text.roll(7, 0))


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
    steps = [dict(type=name) for name in ("LoadImageFromFile", "LoadAnnotations", "PackSegInputs")]

    def loader(subset: str) -> dict:
        folder = dict(
            type="FolderDataset", data_root=str(root), subset=subset, test_mode=subset == "val"
        )
        return dict(dataset=dict(type="ZeroShotDataset", dataset=folder, pipeline=steps))

    model = Config.fromfile(SHAPES / "otseg_plus.py").model
    model.clip.pretrained = str(SHAPES / "clip" / "shapes_clip.safetensors")
    model.split = dict(classes=list(names), unseen=list(names[:2]))
    cfg = dict(model=model, train_dataloader=loader("train"), val_dataloader=loader("val"))
    return check_data(Config(cfg))


@pytest.mark.parametrize(
    "names",
    [
        NAMES[1:] + NAMES[:1],
        NAMES[10:] + NAMES[:10],
        NAMES[::-1],
        sorted(NAMES),
        [*NAMES[:10], *NAMES[11:], NAMES[10]],
    ],
)
def test_a_list_in_another_order(shapes: Path, names: list[str]) -> None:
    (error,) = (text for level, text in report_of(shapes, names).findings if level == "error")
    moved = [index for index, name in enumerate(NAMES) if names[index] != name]
    assert all(f"{index} {NAMES[index]}" in error for index in moved)


def test_two_names_exchanged(shapes: Path) -> None:
    names = NAMES.copy()
    names[2], names[9] = names[9], names[2]
    report = report_of(shapes, names)
    (found,) = (text for _, text in report.findings if "look swapped" in text)
    assert report.can_train and names[2] in found and names[9] in found


@pytest.mark.parametrize(("number", "knowledge"), [(4, 0), (20, 0), (20, 2)])
def test_a_clip_that_knows_little_accuses_nobody(number: int, knowledge: int) -> None:
    random = np.random.default_rng(0)
    for _ in range(40):
        fit = random.standard_normal((number, number)) + knowledge * np.eye(number)
        found = order_findings(fit, list(range(number)), NAMES[:number])
        assert all(finding.level != "error" for finding in found)


def test_names_that_read_alike() -> None:
    (finding,) = compare_names(CLIP, [*NAMES, "Red  Circle"]).findings
    assert finding.level == "warning" and "red circle, Red  Circle" in finding.text
    random = dict(CLIP, pretrained=None)  # knows no language
    assert not compare_names(random, ["car", "cars", "road"]).findings


def test_names_that_do_not_fit() -> None:
    long = " ".join(["very"] * 30 + ["red circle"])
    with pytest.raises(ValueError, match=r"very .* 32 "):
        compare_names(CLIP, [*NAMES, long])


def test_the_sheet_comes_after_the_report_and_names_its_path(shapes: Path, tmp_path: Path) -> None:
    report = report_of(shapes, NAMES)
    assert report.can_train
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
