"""Exported models against the models they were made from, for many classes, images and sizes."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from mmengine.config import ConfigDict
from mmengine.structures import PixelData
from mmseg.registry import DATASETS, MODELS

from mmseg_otseg.datasets.shapes import SHAPES_CLASSES
from mmseg_otseg.demo.samples import shipped_model
from mmseg_otseg.engine import resolve
from mmseg_otseg.evaluation import ZeroShotIoUMetric
from mmseg_otseg.export import check, export_folder
from mmseg_otseg.export.onnx_files import quantize
from mmseg_otseg.inference import OTSegRuntime, with_classes
from mmseg_otseg.inference.exported import Vocabulary
from mmseg_otseg.inference.loading import load_config, load_model
from mmseg_otseg.models.text import PrecomputedPrompts
from tests.helpers.exported import needs_torch
from tests.helpers.small_clips import FEATURE_MAPS, VITS, clip_of, loud, make_towers_small
from tests.helpers.small_configs import small

NAMES = tuple(f"name{index}" for index in range(300))
# A tower of each kind of text encoder is exported with it; one kind is enough for the others.
WITH_TEXT = ("EVA02-L-14", "MobileCLIP2-L-14", "ViT-B-16-SigLIP2")


def give_300_names(model: Any, folder: Path) -> None:
    """Let a model with precomputed text take any of ``NAMES``, after its own names."""
    text = model.neck.text
    shape = (len(NAMES), text.num_prompts, text.embed_dim)
    more = np.random.default_rng(1).normal(size=shape).astype(np.float32)
    np.save(folder / "more.npy", np.concatenate([text().numpy(), more]))
    text.names, text.path = (*text.split.classes, *NAMES), str(folder / "more.npy")


def assert_equal(
    model: Any,
    folder: Path,
    cases: list[tuple[int, int, tuple[int, int]]],
    names: Sequence[str] = NAMES,
) -> None:
    """Compare probabilities and labels, for numbers of classes and images, and sizes in patches."""
    runtime, rng = OTSegRuntime(folder), np.random.default_rng(0)
    for classes, batch, grid in cases:
        named = with_classes(model, names[:classes])
        text, seen = named.neck.text().numpy(), rng.random(classes) < 0.5
        named.neck.seen_names = frozenset(np.array(names[:classes])[seen].tolist())
        size = tuple(side * step for side, step in zip(grid, model.backbone.patch_size))
        images = check._images(rng, batch, size)
        vocabulary = Vocabulary(tuple(names[:classes]), text, seen, [[0, 0, 0]] * classes)
        ours = runtime.run(images, vocabulary)
        theirs = check._model_values(named, images)
        assert theirs.shape == (batch, classes, *size)
        assert classes == 1 or theirs.std(1).mean() > 1e-3  # or equal labels would say little
        assert np.abs(ours - theirs).max() < 1e-4
        assert (ours.argmax(1) != theirs.argmax(1)).mean() <= 1e-3


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
    if isinstance(model.neck.text, PrecomputedPrompts):
        model = with_classes(model)
        give_300_names(model, tmp_path)
        assert_equal(model, tmp_path / "exported", [(1, 2, (3, 4)), (300, 1, (2, 5))])


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
    export_folder(model, cfg, tmp_path / "fp32")
    shutil.copytree(tmp_path / "fp32", tmp_path / "int8")
    quantize(tmp_path / "int8" / "model.onnx")
    for name, bound in (("fp32", 0.1), ("int8", 1.0)):
        runtime = OTSegRuntime(tmp_path / name, threads=1)

        def by_runtime(image: np.ndarray, runtime: OTSegRuntime = runtime) -> np.ndarray:
            return runtime.predict(image[..., ::-1], runtime.known).argmax(0)

        assert table(dataset, by_runtime) == pytest.approx(expected, abs=bound)
    grids = [(8, 8), (5, 11), (12, 7), (3, 4)]
    cases = [
        (classes, batch, grids[index % 4])
        for index, (classes, batch) in enumerate([(1, 4), (2, 3), (20, 2), (150, 1), (300, 4)])
    ]
    # Of words that this CLIP knows: all others are the same to it.
    pairs = [f"{one} {other}" for one in SHAPES_CLASSES for other in SHAPES_CLASSES]
    assert_equal(model, tmp_path / "fp32", cases, (*SHAPES_CLASSES, *pairs))
