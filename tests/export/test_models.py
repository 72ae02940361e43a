"""Exported models against the models they were made from, for many classes, images and sizes."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from mmengine.config import ConfigDict
from mmengine.structures import PixelData
from mmseg.registry import DATASETS, MODELS

from mmseg_otseg.demo.samples import shipped_model
from mmseg_otseg.evaluation import ZeroShotIoUMetric
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


# The OTSeg+ that comes with the project -----------------------------------------------------------

METRICS = ("mIoU_S", "mIoU_U", "hIoU")


def table(dataset: Any, label: Callable[[np.ndarray], np.ndarray]) -> dict[str, float]:
    """Metrics of what labels images (h, w, 3), BGR."""
    metric = ZeroShotIoUMetric()
    metric.dataset_meta = dataset.metainfo
    for index in range(len(dataset)):
        sample = dataset[index]
        labels = label(sample["inputs"].permute(1, 2, 0).numpy())
        data = sample["data_samples"]
        data.pred_sem_seg = PixelData(data=torch.from_numpy(labels.astype(np.int64))[None])
        metric.process({}, [data.to_dict()])
    found = metric.evaluate(len(dataset))
    return {name: found[name] for name in METRICS}


@needs_torch
@pytest.mark.slow
def test_the_table_through_the_exported_file(tmp_path: Path) -> None:
    inferencer = OTSegInferencer(*shipped_model(), "cpu")
    model, cfg = inferencer.model, inferencer.cfg
    dataset = DATASETS.build(cfg.test_dataloader.dataset)

    def by_model(image: np.ndarray) -> np.ndarray:
        return inferencer.predict(image[..., ::-1], model).argmax(0)

    expected = table(dataset, by_model)
    export_folder(model, cfg, tmp_path / "fp32")
    shutil.copytree(tmp_path / "fp32", tmp_path / "int8")
    quantize(tmp_path / "int8" / "model.onnx")
    for name, bound in (("fp32", 0.1), ("int8", 1.0)):
        runtime = OTSegRuntime(tmp_path / name, threads=1)

        def by_runtime(image: np.ndarray, runtime: OTSegRuntime = runtime) -> np.ndarray:
            return runtime.predict(image[..., ::-1], runtime.known).argmax(0)

        assert table(dataset, by_runtime) == pytest.approx(expected, abs=bound)
