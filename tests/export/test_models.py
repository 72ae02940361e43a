"""Exported models against the models they were made from, for many classes, images and sizes."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from mmengine.config import ConfigDict
from mmseg.registry import DATASETS, MODELS

from mmseg_otseg.demo.samples import shipped_model
from mmseg_otseg.export import export_folder
from mmseg_otseg.export.onnx_files import quantize
from mmseg_otseg.inference import OTSegInferencer, OTSegRuntime, with_classes
from tests.helpers.exported import needs_torch
from tests.helpers.small_clips import FEATURE_MAPS, VITS, clip_of, loud, make_towers_small
from tests.helpers.small_configs import small

# A tower of each kind of text encoder is exported with it; one kind is enough for the others.
WITH_TEXT = ("EVA02-L-14", "MobileCLIP2-L-14", "ViT-B-16-SigLIP2")


@needs_torch
@pytest.mark.slow
@pytest.mark.parametrize("name", [*VITS, *FEATURE_MAPS])
def test_every_family(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make_towers_small(monkeypatch)
    cfg, clip = small("otseg/voc_512.py", tmp_path), clip_of(name)
    cfg.model.clip = ConfigDict(clip)
    if name in FEATURE_MAPS:
        cfg.model.backbone.visual_prompts = None
    if name not in WITH_TEXT:
        width = clip["model"]["embed_dim"]
        np.save(tmp_path / "text.npy", np.random.default_rng(0).normal(size=(20, 6, width)))
        cfg.model.neck.text = str(tmp_path / "text.npy")
    torch.manual_seed(0)
    model = MODELS.build(cfg.model).eval()
    loud(model.backbone)
    differences = export_folder(with_classes(model), cfg, tmp_path / "exported")
    assert differences["text"] < 1e-5
    assert differences["probabilities"] < 1e-4


@needs_torch
@pytest.mark.slow
def test_the_shipped_model_in_float32_and_in_8_bits(tmp_path: Path) -> None:
    inferencer = OTSegInferencer(*shipped_model(), "cpu")
    dataset = DATASETS.build(inferencer.cfg.test_dataloader.dataset)
    images = [np.moveaxis(dataset[index]["inputs"].numpy(), 0, 2) for index in range(100)]
    images = [image[..., ::-1] for image in images]
    expected = [inferencer.predict(image, inferencer.model).argmax(0) for image in images]
    export_folder(inferencer.model, inferencer.cfg, tmp_path / "fp32")
    shutil.copytree(tmp_path / "fp32", tmp_path / "int8")
    quantize(tmp_path / "int8" / "model.onnx")
    for name, share in (("fp32", 0.999), ("int8", 0.97)):
        runtime = OTSegRuntime(tmp_path / name, threads=1)
        found = [runtime.predict(image, runtime.known).argmax(0) for image in images]
        assert np.mean(np.stack(found) == np.stack(expected)) > share
