"""Settings at the top level of a config that have no effect where they stand."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from typing import Any

from mmengine.config import Config
from mmengine.logging import print_log

from mmseg_otseg.errors import UserError
from mmseg_otseg.structures import ClassSplit

# What our dataset configs define first and then use in the dataloaders they define.
HELPERS = ("crop_size", "scale", "train_pipeline", "test_pipeline")


def check_no_idle_settings(cfg: Config, split: ClassSplit) -> None:
    """Refuse a setting at the top level of a config that nothing reads.

    The checked settings are ``split``, ``classes``, ``unseen``, ``seen``, ``background`` and
    ``data_root``.

    Args:
        cfg: The whole config.
        split: The model's class split.

    Raises:
        UserError: If a setting at the top level would have no effect. A ``split`` that equals the
            model's is allowed.
    """
    folders = _reads_folders(dict(cfg.items()))
    if cfg.get("background") is not None and not folders:
        raise UserError(
            f"the setting background={cfg.background} has no effect: only FolderDataset, as in "
            "configs/own_data, uses it. For a background of 0 in other datasets, set "
            "reduce_zero_label=True in them"
        )
    root, given = cfg.get("data_root"), set(_data_roots(cfg))
    if root is not None and given and str(root) not in given and not folders:
        raise UserError(
            f"the setting data_root={root} at the top of the config has no effect: the datasets "
            f"have data_root={', '.join(sorted(given))}. Set it in each of them, for example "
            "train_dataloader=dict(dataset=dict(dataset=dict(data_root=...)))"
        )
    idle, model = cfg.get("split"), cfg.get("model") or {}
    model = model.get("module", model)  # test-time augmentation wraps the segmentor
    for key in ("classes", "unseen", "seen"):
        if key in cfg and model.get("split") is not None:
            raise UserError(
                f"the setting {key}={cfg[key]} at the top of the config has no effect: write "
                f"model=dict(split=dict({key}=...)), or --cfg-options model.split.{key}=..."
            )
    if idle is None or model.get("split") is None:
        return
    try:
        same = ClassSplit.build(idle) == split
    except (TypeError, ValueError):
        same = False
    if not same:
        raise UserError(
            f"the setting split={idle} has no effect: write model=dict(split=...), or "
            "--cfg-options model.split..., which reaches the model, the data and the metric"
        )


def _reads_folders(config: Any) -> bool:
    """Whether a config, or a part of one, has a ``FolderDataset``."""
    if isinstance(config, Mapping):
        return config.get("type") == "FolderDataset" or any(map(_reads_folders, config.values()))
    return isinstance(config, list | tuple) and any(map(_reads_folders, config))


def _data_roots(config: Any) -> Iterator[str]:
    """Every ``data_root`` of the datasets of a config."""
    for part in ("train", "val", "test"):
        pending = [(config.get(f"{part}_dataloader") or {}).get("dataset")]
        while pending:
            dataset = pending.pop()
            if isinstance(dataset, Mapping):
                pending += [dataset.get("dataset"), *(dataset.get("datasets") or ())]
                if dataset.get("data_root"):
                    yield str(dataset["data_root"])


def warn_of_idle_pipelines(cfg: Config) -> None:
    """Warn of a pipeline or image size at the top level of a config that no dataloader has.

    A config that inherits ``crop_size`` or ``train_pipeline`` and changes it alone changes nothing:
    the inherited dataloaders were made with the value before.

    Args:
        cfg: The whole config.
    """
    rest = {key: value for key, value in cfg.items() if key not in HELPERS}
    for name in HELPERS:
        if name == "train_pipeline" and not cfg.get("train_dataloader"):
            continue  # a config that only tests
        if name in cfg and not _occurs(_plain(cfg[name]), _plain(rest)):
            value = "..." if name.endswith("pipeline") else cfg[name]
            print_log(
                f"The setting {name}={value} at the top of the config has no effect: no dataloader "
                "has it. They keep the values of the config that defines them, so set the "
                "pipeline in the dataloader too, for example train_dataloader=dict(dataset="
                "dict(pipeline=train_pipeline)).",
                "current",
                logging.WARNING,
            )


def _plain(value: Any) -> Any:
    """A config's value with lists for tuples, as a dumped config may have either."""
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    return [_plain(item) for item in value] if isinstance(value, list | tuple) else value


def _occurs(value: Any, config: Any) -> bool:
    """Whether a value is somewhere in a config."""
    if type(config) is type(value) and config == value:
        return True
    items = config.values() if isinstance(config, dict) else config
    return isinstance(config, dict | list) and any(_occurs(value, item) for item in items)
