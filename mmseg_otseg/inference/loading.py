"""Loads a config, its model with weights, and its test pipeline for inference."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mmcv.transforms import Compose
from mmengine.config import Config
from mmengine.logging import print_log
from mmengine.model import revert_sync_batchnorm
from mmengine.registry import init_default_scope
from mmengine.runner import CheckpointLoader, load_state_dict
from mmseg.registry import MODELS

import mmseg_otseg
from mmseg_otseg.datasets.data_folders import nested_datasets
from mmseg_otseg.engine.config import resolve, type_name
from mmseg_otseg.errors import UserError
from mmseg_otseg.inference.vocabulary import copy_with_classes

FROM_ARRAY = "LoadImageFromNDArray"
NAMES_CONFIG = Path("training_free", "names.py")


def installed_config(name: str | os.PathLike) -> Path:
    """A file of the configs that come with the package.

    Args:
        name: Its path in the folder of the configs.

    Raises:
        FileNotFoundError: If it did not come with the package.
    """
    package = Path(mmseg_otseg.__file__).parent
    for folder in (package / "configs", package.parent / "configs"):  # installed, or a checkout
        if (folder / name).is_file():
            return folder / name
    raise FileNotFoundError(f"{Path('configs', name)} did not come with the package")


def load_config(model: str | os.PathLike | Config | Mapping[str, Any]) -> Config:
    """Read and resolve a config file or a loaded config, and set the scope of its components.

    Raises:
        UserError: If it is neither.
    """
    if isinstance(model, str | Path):
        model = Config.fromfile(model)
    elif isinstance(model, Mapping) and "model" in model:
        model = Config(dict(model))
    if not isinstance(model, Config):
        raise UserError(f"`model` must be a config file or a loaded config, not {model!r:.80}")
    init_default_scope(model.get("default_scope", "mmseg"))
    return resolve(model)


def load_model(cfg: Config, weights: str | os.PathLike | None) -> Any:
    """Build the config's model and load a checkpoint's weights and class colors.

    Args:
        cfg: A config with ``model``.
        weights: Checkpoint; None leaves the trainable parts as initialized.

    Raises:
        UserError: If the model has no vocabulary, or the checkpoint is refused.
    """
    # Read first, so that a wrong file is reported before CLIP is built or even downloaded.
    read = CheckpointLoader.load_checkpoint
    checkpoint = None if weights is None else read(os.fspath(weights), map_location="cpu")
    model = revert_sync_batchnorm(MODELS.build(cfg.model))
    if checkpoint is None:
        if any(parameter.requires_grad for parameter in model.parameters()):
            print_log("no weights given: the trainable parts stay as initialized", "current")
        return copy_with_classes(model)
    load_state_dict(model, checkpoint.get("state_dict", checkpoint))
    model.dataset_meta = checkpoint.get("meta", {}).get("dataset_meta") or {}
    return copy_with_classes(model)


def array_pipeline(cfg: Config) -> Compose:
    """The config's test pipeline for images that have already been read.

    The first step is replaced, because it would read (or draw) the image, and other loaders, which
    would read labels, are left out. The input is ``dict(img=...)``, BGR values (H, W, 3), uint8.

    Raises:
        UserError: If the config has no test pipeline.
    """
    first, *steps = pipeline_for_testing(cfg)
    built = [dict(first if first["type"] == "LoadImageFromFile" else {}, type=FROM_ARRAY)]
    built += [step for step in steps if not type_name(step).startswith("Load")]
    return Compose(built)


def pipeline_for_testing(cfg: Config) -> Any:
    """The steps of a config's test pipeline.

    Raises:
        UserError: If the config has none.
    """
    for name in ("test_dataloader", "val_dataloader"):
        for dataset in nested_datasets((cfg.get(name) or {}).get("dataset") or {}):
            if dataset.get("pipeline"):
                return dataset["pipeline"]
    if not cfg.get("test_pipeline"):
        raise UserError(
            "the config has no test pipeline: set test_dataloader.dataset.pipeline or test_pipeline"
        )
    return cfg.test_pipeline
