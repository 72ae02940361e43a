"""Exported models against the models they were made from, for many classes, images and sizes."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from mmengine.config import Config, ConfigDict
from mmseg.registry import MODELS

from mmseg_otseg.export import check, export_folder
from mmseg_otseg.inference import OTSegRuntime, with_classes
from mmseg_otseg.inference.exported import Vocabulary
from mmseg_otseg.models.text import PrecomputedPrompts
from tests.helpers.exported import needs_torch
from tests.helpers.paths import ROOT
from tests.helpers.reference import Reference
from tests.helpers.small_clips import FEATURE_MAPS, VITS, clip_of, loud, make_towers_small
from tests.helpers.small_configs import small

NAMES = tuple(f"name{index}" for index in range(300))
# A tower of each kind of text encoder is exported with it; one kind is enough for the others.
WITH_TEXT = ("EVA02-L-14", "MobileCLIP2-L-14", "ViT-B-16-SigLIP2")
PIPELINE = [
    dict(type="LoadImageFromFile"),
    dict(type="Resize", scale=(512, 512)),
    dict(type="PackSegInputs"),
]


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
) -> tuple[float, float]:
    """Compare probabilities and labels, for numbers of classes and images, and sizes in patches."""
    runtime, rng = OTSegRuntime(folder), np.random.default_rng(0)
    largest, most = 0.0, 0.0
    for classes, batch, grid in cases:
        named = with_classes(model, names[:classes])
        text, seen = named.neck.text().numpy(), rng.random(classes) < 0.5
        named.neck.seen_names = frozenset(np.array(names[:classes])[seen].tolist())
        size = tuple(side * step for side, step in zip(grid, model.backbone.patch_size))
        images = check._images(rng, batch, size)
        vocabulary = Vocabulary(tuple(names[:classes]), text, seen, [[0, 0, 0]] * classes)
        ours = runtime.run(images, vocabulary)
        theirs = check._model_values(named, images, at_image_size=True)
        assert theirs.shape == (batch, classes, *size)
        assert classes == 1 or theirs.std(1).mean() > 1e-3  # or equal labels would say little
        largest = max(largest, float(np.abs(ours - theirs).max()))
        most = max(most, float((ours.argmax(1) != theirs.argmax(1)).mean()))
    print(f"probabilities {largest:.1e}, labels {most:.3%}")
    assert largest < 1e-4
    assert most <= 1e-3
    return largest, most


@needs_torch
@pytest.mark.slow
@pytest.mark.parametrize("name", ["a", "b"])
def test_the_reference_models(name: str, tmp_path: Path) -> None:
    model = with_classes(Reference(name).model(tmp_path).eval())
    cfg = Config(dict(test_pipeline=PIPELINE))
    export_folder(model, cfg, tmp_path / "exported")
    give_300_names(model, tmp_path)
    grids = [(4, 4), (7, 3), (2, 9), (5, 6)]
    cases = [
        (classes, batch, grids[(index + batch) % 4])
        for index, classes in enumerate((1, 2, 20, 150, 300))
        for batch in (1, 2, 3, 4)
    ]
    assert_equal(model, tmp_path / "exported", cases)


@needs_torch
@pytest.mark.slow
def test_a_vit_b_16_at_full_size(tmp_path: Path) -> None:
    cfg = Config.fromfile(ROOT / "configs" / "otseg" / "voc_512.py")
    cfg.model.clip = ConfigDict(model="ViT-B-16")
    np.save(tmp_path / "text.npy", np.random.default_rng(0).normal(size=(20, 6, 512)))
    cfg.model.neck.text = str(tmp_path / "text.npy")
    torch.manual_seed(0)
    model = with_classes(MODELS.build(cfg.model).eval())
    export_folder(model, cfg, tmp_path / "exported")
    give_300_names(model, tmp_path)
    cases = [(20, 1, (32, 32)), (1, 4, (8, 10)), (171, 2, (14, 20)), (300, 3, (6, 12))]
    assert_equal(model, tmp_path / "exported", cases)


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
