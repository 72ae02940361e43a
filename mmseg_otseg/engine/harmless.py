"""Removes the entries of a checkpoint that could make mmengine do harm.

When it resumes, mmengine runs ``meta.config`` as Python and deletes the file or folder named in
``message_hub.runtime_info.best_ckpt``. An inferencer without a config builds its model from
``runtime_info.cfg`` or ``meta.cfg``, and a config can call anything importable. This package's own
checkpoints have these entries too, so they are removed instead of refused.
"""

from __future__ import annotations

import os
from collections import OrderedDict
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from mmengine.logging import HistoryBuffer
from torch import Tensor

from mmseg_otseg.errors import UserError

LARGEST_SEED = 2**32 - 1
LARGEST_STEP = 10**8  # mmengine counts up to it one by one
CONFIGS = ("cfg", "config")
NEEDED = {
    "epoch": "cannot be resumed from, because it does not say at which iteration it was saved. "
    "Give it as load_from instead to start with its weights.",
    "cfg": "does not say which model to build: a config in a checkpoint is never used, because "
    "it can run any code. Give the config file as well.",
}
NEEDED["iter"] = NEEDED["epoch"]
# The parts of a segmentor that receive the file's name along with their weights.
PARTS = ("backbone", "neck", "decode_head")


class Part(OrderedDict):
    """A dict of a checkpoint; if a required entry is missing, the error names the file.

    Args:
        file: Name of the checkpoint.
        content: Its entries.
    """

    def __init__(self, file: str, content: Mapping[str, Any]) -> None:
        super().__init__(content)
        self._file = file

    def __missing__(self, key: Any) -> Any:
        if key in NEEDED:
            raise UserError(f"The checkpoint {self._file} {NEEDED[key]}")
        raise KeyError(key)

    def __reduce__(self) -> tuple:  # saved and copied like any other dict
        return OrderedDict, (), None, None, iter(self.items())


def make_harmless(checkpoint: Any, file: str) -> Part:
    """Turn a checkpoint into one that is safe to pass to mmengine.

    Args:
        checkpoint: What :func:`~mmseg_otseg.engine.read_checkpoint` returned.
        file: Name of the checkpoint, for messages.

    Returns:
        The checkpoint with ``meta``, ``message_hub`` and ``state_dict``. A file that holds only
        named tensors becomes a ``state_dict``; any other dict without one keeps its content.

    Raises:
        UserError: If it is not a checkpoint, or its information about the run is invalid.
    """
    if not isinstance(checkpoint, Mapping):
        raise UserError(f"{file} is not a checkpoint: it holds a {type(checkpoint).__name__}")
    if checkpoint and all(isinstance(value, Tensor) for value in checkpoint.values()):
        checkpoint = {"state_dict": checkpoint}
    try:
        parts = Part(file, _named(checkpoint, "it"))
        parts["meta"] = Part(file, _harmless_meta(_named(checkpoint.get("meta", {}), "meta")))
        hub = _harmless_hub(_named(checkpoint.get("message_hub", {}), "message_hub"))
        parts["message_hub"] = {**hub, "runtime_info": Part(file, hub["runtime_info"])}
        for name in ("state_dict", "ema_state_dict"):
            if name in parts:
                parts[name] = _weights(_named(parts[name], name), name, file)
        _expect("optimizer" not in parts or isinstance(parts["optimizer"], dict), "optimizer")
        schedulers = parts.get("param_schedulers", [])
        _expect(isinstance(schedulers, (list, dict)), "param_schedulers")
    except ValueError as error:
        raise UserError(f"The checkpoint {file} is damaged: {error}") from error
    return parts


def _harmless_meta(meta: dict[str, Any]) -> dict[str, Any]:
    kept = {name: value for name, value in meta.items() if name not in CONFIGS}
    for name in ("epoch", "iter"):
        _expect(name not in kept or _is_count(kept[name], LARGEST_STEP), f"meta.{name}")
    _expect(kept.get("seed") is None or _is_count(kept["seed"], LARGEST_SEED), "meta.seed")
    data = kept.get("dataset_meta") or {}
    _expect(isinstance(data, dict), "meta.dataset_meta")
    for place, lists in (("meta", kept), ("meta.dataset_meta", data)):
        for name in ("classes", "trained_classes", "CLASSES"):
            names = lists.get(name)
            _expect(names is None or _is_list(names, lambda item: isinstance(item, str)), place)
        indices = range(len(lists.get("classes") or ()))
        for name in ("seen", "unseen"):
            chosen = lists.get(name)
            _expect(chosen is None or _is_list(chosen, indices.__contains__), place)
    return kept


def _harmless_hub(hub: dict[str, Any]) -> dict[str, dict[str, Any]]:
    names = ("log_scalars", "runtime_info", "resumed_keys")
    scalars, info, resumed = (_named(hub.get(name, {}), f"message_hub.{name}") for name in names)
    scalars = {name: item for name, item in scalars.items() if isinstance(item, HistoryBuffer)}
    info = {name: item for name, item in info.items() if name not in (*CONFIGS, "last_ckpt")}
    for name, item in info.items():
        if name.startswith("best_ckpt") and item is not None:
            # Keep the name, but under a path where no file can exist that mmengine would delete.
            info[name] = os.path.join(os.devnull, Path(str(item)).name)
        elif name.startswith("best_score"):
            _expect(item is None or isinstance(item, (int, float, np.number)), name)
        elif name == "keep_ckpt_ids":  # mmengine deletes files with these numbers in their names
            _expect(_is_list(item, _is_count), name)
    resumed = {
        name: bool(item) for name, item in resumed.items() if name in scalars or name in info
    }
    return dict(zip(names, (scalars, info, resumed)))


def _weights(state: dict[str, Any], name: str, file: str) -> OrderedDict[str, Any]:
    """Named tensors, with the file's name in the metadata for the modules that load them."""
    for key, value in state.items():
        _expect(isinstance(value, Tensor) or key.endswith("_extra_state"), f"{name}['{key[:100]}']")
    weights = OrderedDict(state)
    versions = getattr(state, "_metadata", {})
    versions = versions if isinstance(versions, dict) else {}
    kept = {
        part: {"version": item["version"]}
        for part, item in versions.items()
        if isinstance(item, dict) and _is_count(item.get("version"))
    }
    for part in PARTS:
        kept.setdefault(part, {})["file"] = file
    weights._metadata = kept  # type: ignore[attr-defined]
    return weights


def _named(value: Any, name: str) -> dict[str, Any]:
    """Return ``value`` if it is a dict with strings as keys; raise a ValueError otherwise."""
    _expect(isinstance(value, dict) and all(isinstance(key, str) for key in value), name)
    return value


def _is_list(value: Any, fits: Callable[[Any], bool]) -> bool:
    return isinstance(value, (list, tuple)) and all(map(fits, value))


def _is_count(value: Any, largest: int = LARGEST_STEP) -> bool:
    return isinstance(value, (int, np.integer)) and bool(0 <= value <= largest)


def _expect(true: bool, name: str) -> None:
    if not true:
        raise UserError(f"{name} has a form that mmengine never writes")
