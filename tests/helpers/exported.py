"""Small models of the project and the folders they are exported to."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from mmengine.config import Config
from mmseg.registry import MODELS

from mmseg_otseg.export.folder import MIN_TORCH, export_folder
from mmseg_otseg.inference import copy_with_classes
from tests.helpers.small_configs import small

for package in ("onnx", "onnxscript", "onnxruntime", "tokenizers"):
    pytest.importorskip(package)
TOO_OLD = tuple(int(part) for part in torch.__version__.split(".")[:2]) < MIN_TORCH
needs_torch = pytest.mark.skipif(TOO_OLD, reason=f"exporting needs torch {MIN_TORCH}")


class Exported(NamedTuple):
    """A model and the folder it was exported to."""

    model: Any
    cfg: Config
    folder: Path
    differences: dict[str, float]


def small_model(name: str, folder: Path) -> tuple[Any, Config]:
    """A config of the project with a small CLIP, and its model with random weights."""
    cfg = small(name, folder)
    torch.manual_seed(0)
    return copy_with_classes(MODELS.build(cfg.model).eval()), cfg


def exported(name: str, folder: Path, **options: Any) -> Exported:
    """Build a model of the project and export it."""
    if TOO_OLD:
        pytest.skip(f"exporting needs torch {MIN_TORCH}")
    model, cfg = small_model(name, folder)
    differences = export_folder(model, cfg, folder / "exported", **options)
    return Exported(model, cfg, folder / "exported", differences)
