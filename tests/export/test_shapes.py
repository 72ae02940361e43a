"""The OTSeg+ that comes with the project, exported: its test table, and many classes and images."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from mmengine.structures import PixelData
from mmseg.registry import DATASETS

from mmseg_otseg.datasets.shapes import SHAPES_CLASSES
from mmseg_otseg.demo.samples import shipped_model
from mmseg_otseg.engine import resolve
from mmseg_otseg.evaluation import ZeroShotIoUMetric
from mmseg_otseg.export import export_folder
from mmseg_otseg.export.onnx_files import quantize
from mmseg_otseg.inference import OTSegRuntime
from mmseg_otseg.inference.loading import load_config, load_model
from tests.export.test_models import assert_equal
from tests.helpers.exported import needs_torch

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
    config, weights = shipped_model()
    cfg = load_config(config)
    model = load_model(cfg, weights).eval()
    dataset = DATASETS.build(resolve(cfg).test_dataloader.dataset)

    def by_model(image: np.ndarray) -> np.ndarray:
        data = model.data_preprocessor(
            {"inputs": [torch.from_numpy(image).permute(2, 0, 1)]}, False
        )
        with torch.no_grad():
            values = model.predict(data["inputs"])[0].pred_sem_seg.data[0]
        return values.numpy()

    expected = table(dataset, by_model)
    print("model", expected)
    export_folder(model, cfg, tmp_path / "fp32")
    shutil.copytree(tmp_path / "fp32", tmp_path / "int8")
    quantize(tmp_path / "int8" / "model.onnx")
    for name, bound in (("fp32", 0.1), ("int8", 1.0)):
        runtime = OTSegRuntime(tmp_path / name, threads=1)

        def by_runtime(image: np.ndarray, runtime: OTSegRuntime = runtime) -> np.ndarray:
            return runtime.predict(image[..., ::-1], runtime.known).argmax(0)

        found = table(dataset, by_runtime)
        print(name, found)
        assert found == pytest.approx(expected, abs=bound)
    grids = [(8, 8), (5, 11), (12, 7), (3, 4)]
    cases = [
        (classes, batch, grids[index % 4])
        for index, (classes, batch) in enumerate([(1, 4), (2, 3), (20, 2), (150, 1), (300, 4)])
    ]
    # Of words that this CLIP knows: all others are the same to it.
    pairs = [f"{one} {other}" for one in SHAPES_CLASSES for other in SHAPES_CLASSES]
    assert_equal(model, tmp_path / "fp32", cases, (*SHAPES_CLASSES, *pairs))
