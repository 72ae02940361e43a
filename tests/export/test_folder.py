from __future__ import annotations

import copy
import json
import shutil
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from mmseg_otseg.export import check, export_folder, folder
from mmseg_otseg.export.onnx_files import PROGRAM
from mmseg_otseg.inference import OTSegInferencer, OTSegRuntime
from tests.helpers.exported import Exported, exported, needs_torch, small_model


def test_it_agrees_with_the_model(otseg: Exported) -> None:
    assert otseg.differences["probabilities"] < 1e-5
    assert otseg.differences["text"] < 1e-5
    files = {path.name for path in otseg.folder.iterdir()}
    assert files == {
        "model.onnx",
        "text_encoder.onnx",
        "tokenizer.json",
        "vocabulary.npz",
        "model.json",
    }


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("otseg/voc_512.py", {"size": None, "residual": True, "program": True}),
        ("otseg/voc_512.py", {"size": None, "opset": 23}),
        ("zegot/voc_512.py", {"size": None}),
        ("zegot/voc_512.py", {"size": (64, 64), "at_image_size": False}),
        ("zegclip/cocostuff_512.py", {"size": (64, 64)}),
        ("ablations/otseg_voc_512_softmax.py", {"size": None}),
        ("ablations/otseg_voc_512_decoder.py", {"size": (64, 64)}),
        ("shapes/training_free.py", {"size": None}),
    ],
)
def test_every_method_and_option(name: str, options: dict[str, Any], tmp_path: Path) -> None:
    result = exported(name, tmp_path, **options)
    assert result.differences["probabilities"] < 1e-4
    if options.get("program"):
        program = torch.export.load(result.folder / PROGRAM).module()
        runtime = OTSegRuntime(result.folder)
        image = np.random.default_rng(0).integers(0, 256, (2, 80, 48, 3), dtype=np.uint8)
        ours = runtime.run(image, runtime.known)
        text = torch.from_numpy(runtime.known.text)
        bias = runtime.seen_bias * torch.from_numpy(runtime.known.seen).float()
        with torch.no_grad():
            theirs, residual = program(torch.from_numpy(image).permute(0, 3, 1, 2), text, bias)
        np.testing.assert_allclose(ours, theirs.numpy(), atol=1e-5)
        assert residual < 0.05


def test_masks_are_those_of_the_inferencer(otseg: Exported, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    coarse = rng.integers(0, 256, (4, 6, 3), dtype=np.uint8)
    image = coarse.repeat(20, 0).repeat(20, 1)  # larger than a window once it is resized
    torch.save({"state_dict": otseg.model.state_dict(), "meta": {}}, tmp_path / "w.pth")
    inferencer = OTSegInferencer(otseg.cfg, str(tmp_path / "w.pth"), device="cpu")
    runtime = OTSegRuntime(otseg.folder)
    for options in ({}, {"classes": "cat, sofa, wall"}, {"none_below": 0.5}):
        theirs = inferencer(image, **options)
        ours = runtime(image, **options)
        assert ours["classes"] == theirs["classes"]
        assert (ours["predictions"][0] == theirs["predictions"][0]).mean() > 0.99


def test_a_file_that_differs_is_not_left(
    otseg: Exported, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = copy.deepcopy(otseg.model)
    with torch.no_grad():
        other.neck.descriptor.linear.bias += 1
    with pytest.raises(ValueError, match="probabilities"):
        check.check_folder(otseg.folder, other)
    # What is written is the first model's, the rest is done as for any export.
    prompts = json.loads((otseg.folder / "model.json").read_text())["prompts"]

    def write_graph(graph: nn.Module, example: Any, path: Path, *options: Any) -> None:
        shutil.copy(otseg.folder / path.name, path)

    def write_text_encoder(text: Any, part: Path, opset: int) -> dict[str, Any]:
        for name in ("text_encoder.onnx", "tokenizer.json"):
            shutil.copy(otseg.folder / name, part)
        return prompts

    monkeypatch.setattr(folder, "write_graph", write_graph)
    monkeypatch.setattr(folder, "write_text_encoder", write_text_encoder)
    with pytest.raises(ValueError, match="differs"):
        export_folder(other, otseg.cfg, tmp_path / "out", size=(64, 64))
    assert not list(tmp_path.iterdir())
    export_folder(otseg.model, otseg.cfg, tmp_path / "out", size=(64, 64))
    assert {path.name for path in tmp_path.iterdir()} == {"out"}


@needs_torch
@pytest.mark.parametrize(
    ("options", "word"),
    [
        ({"size": (64, 60)}, "16"),
        ({"opset": 11}, "opset"),
        ({"size": (128, 128)}, "crop_size"),
        ({"size": (64, 64), "mode": "whole"}, "--dynamic"),
    ],
)
def test_arguments_that_do_not_fit(options: dict[str, Any], word: str, tmp_path: Path) -> None:
    model, cfg = small_model("otseg/voc_512.py", tmp_path)
    options = dict(options)
    model.test_cfg.mode = options.pop("mode", "slide")
    with pytest.raises(ValueError, match=word):
        export_folder(model, cfg, tmp_path / "out", **options)
    assert not (tmp_path / "out").exists()


@needs_torch
def test_half_precision_is_refused(tmp_path: Path) -> None:
    model, cfg = small_model("otseg/voc_512.py", tmp_path)
    model.backbone.clip.bfloat16()
    with pytest.raises(ValueError, match="precision"):
        export_folder(model, cfg, tmp_path / "out", size=(64, 64))


@pytest.mark.slow
def test_eight_bits(otseg: Exported, tmp_path: Path) -> None:
    rounded = exported("otseg/voc_512.py", tmp_path, size=(64, 64), int8=True)
    full, small = (OTSegRuntime(one.folder) for one in (otseg, rounded))
    image = check._images(np.random.default_rng(0), 2, (64, 64))
    difference = np.abs(full.run(image, full.known) - small.run(image, small.known)).max()
    assert 1e-5 < difference < 0.1
    assert 1e-5 < rounded.differences["probabilities"] < 0.1
    assert json.loads((rounded.folder / "model.json").read_text())["int8"]
    sizes = [(one.folder / "model.onnx").stat().st_size for one in (otseg, rounded)]
    assert sizes[1] < 0.8 * sizes[0]
    assert {path.name for path in rounded.folder.iterdir()} == {
        path.name for path in otseg.folder.iterdir()
    }


@needs_torch
def test_an_epsilon_out_of_range_is_refused(tmp_path: Path) -> None:
    model, cfg = small_model("ablations/otseg_voc_512_epsilon_001.py", tmp_path)
    with pytest.raises(ValueError, match=r"epsilon >= 0\.05, got 0\.01"):
        export_folder(model, cfg, tmp_path / "out", size=(64, 64))


@needs_torch
def test_nothing_is_overwritten(tmp_path: Path) -> None:
    model, cfg = small_model("otseg/voc_512.py", tmp_path)
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "file").touch()
    with pytest.raises(FileExistsError, match="out"):
        export_folder(model, cfg, tmp_path / "out")


@needs_torch
def test_a_pipeline_it_cannot_repeat(tmp_path: Path) -> None:
    model, cfg = small_model("otseg/voc_512.py", tmp_path)
    cfg.test_dataloader.dataset.pipeline.insert(1, dict(type="RandomFlip", prob=1.0))
    with pytest.raises(ValueError, match="RandomFlip"):
        export_folder(model, cfg, tmp_path / "out")


def test_the_metadata_says_what_a_program_needs(otseg: Exported) -> None:
    metadata = json.loads((otseg.folder / "model.json").read_text())
    assert metadata["windows"] == {"size": [64, 64], "stride": [48, 48]}
    assert metadata["resize"] == {"scale": [256, 64], "keep_ratio": True}
    assert metadata["seen_bias"] == 0.1
    assert len(metadata["prompts"]["templates"]) == 6
    fingerprint = otseg.model.backbone.clip.fingerprint
    assert metadata["clip"] == bytes(fingerprint.tolist()).hex()


@needs_torch
def test_a_package_that_is_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnxscript", None)
    model, cfg = small_model("otseg/voc_512.py", tmp_path)
    with pytest.raises(ImportError, match=r"mmseg_otseg\[export\].*onnxscript"):
        export_folder(model, cfg, tmp_path / "out", size=(64, 64))
