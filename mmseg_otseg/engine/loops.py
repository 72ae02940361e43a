"""mmengine's loops, extended to give a run's datasets the class split of its model.

A config names the split once, as ``model.split``. The data folder and the background of a
:class:`FolderDataset` are also named once, at the top level. The Runner builds the model before any
dataset, so the loops can copy the split to each :class:`ZeroShotDataset` and the folder and the
background to each :class:`FolderDataset` whose config does not set them. They also register the
hooks that check every run: :class:`RunCheckHook`, :class:`ResumeCheckHook` and
:class:`FiniteLossHook`.

The loops are registered in mmseg's registry under mmengine's names, so every config with mmseg's
default scope uses them, whichever tool runs it. For a loop without a ``type`` (``val_cfg=dict()``),
mmengine's runner uses the class in its own module, so the loops are installed there as well.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Any

import mmengine
from mmengine import runner as mmengine_runner
from mmengine.config import ConfigDict
from mmengine.runner import Runner
from mmseg.registry import LOOPS

from mmseg_otseg.engine.hooks.finite_loss_hook import FiniteLossHook
from mmseg_otseg.engine.hooks.resume_check_hook import ResumeCheckHook
from mmseg_otseg.engine.hooks.run_check_hook import RunCheckHook
from mmseg_otseg.engine.parts import class_split
from mmseg_otseg.structures import SplitLike

FROM_THE_TOP = ("data_root", "background")


@LOOPS.register_module()
class IterBasedTrainLoop(mmengine_runner.IterBasedTrainLoop):
    """Trains for a number of iterations."""

    def __init__(self, runner: Runner, dataloader: Any, *args: Any, **kwargs: Any) -> None:
        super().__init__(runner, _prepare(runner, dataloader), *args, **kwargs)


@LOOPS.register_module()
class EpochBasedTrainLoop(mmengine_runner.EpochBasedTrainLoop):
    """Trains for a number of epochs."""

    def __init__(self, runner: Runner, dataloader: Any, *args: Any, **kwargs: Any) -> None:
        super().__init__(runner, _prepare(runner, dataloader), *args, **kwargs)


@LOOPS.register_module()
class ValLoop(mmengine_runner.ValLoop):
    """Evaluates on the validation data."""

    def __init__(self, runner: Runner, dataloader: Any, *args: Any, **kwargs: Any) -> None:
        super().__init__(runner, _prepare(runner, dataloader), *args, **kwargs)


@LOOPS.register_module()
class TestLoop(mmengine_runner.TestLoop):
    """Evaluates on the test data."""

    def __init__(self, runner: Runner, dataloader: Any, *args: Any, **kwargs: Any) -> None:
        super().__init__(runner, _prepare(runner, dataloader), *args, **kwargs)


LOOPS_BY_NAME = {
    loop.__name__: loop for loop in (IterBasedTrainLoop, EpochBasedTrainLoop, ValLoop, TestLoop)
}


def install() -> None:
    """Make mmengine's runner use these loops when a config gives no type.

    Raises:
        RuntimeError: If this version of mmengine builds its loops in another way.
    """
    module = sys.modules[Runner.__module__]
    for name, loop in LOOPS_BY_NAME.items():
        if not issubclass(loop, getattr(module, name, type(None))):
            raise RuntimeError(
                f"mmengine {mmengine.__version__} builds loops in a way that mmseg_otseg does not "
                "know. Install a version that mmseg_otseg's setup.py allows."
            )
        setattr(module, name, loop)


def with_split(config: Any, split: SplitLike | None, top: Mapping[str, Any] | None = None) -> Any:
    """Copy a config and give this split to every ``ZeroShotDataset`` that has none.

    A ``FolderDataset`` without ``data_root`` or ``background`` takes them from the top level of the
    config, so that training and validation data share them.

    Args:
        config: Config of a data loader or a dataset, or a part of one.
        split: The class split; if it is None, no split is filled in.
        top: The whole config; if it is None, nothing is taken from it.

    Returns:
        The copy.
    """
    if isinstance(config, Mapping):
        filled = ConfigDict({key: with_split(value, split, top) for key, value in config.items()})
        kind = filled.get("type")
        name = kind.split(".")[-1] if isinstance(kind, str) else getattr(kind, "__name__", None)
        if name == "ZeroShotDataset" and filled.get("split") is None and split is not None:
            filled.split = split
        if name == "FolderDataset" and top is not None:
            for key in set(FROM_THE_TOP) & set(top):
                filled.setdefault(key, top[key])
        return filled
    if isinstance(config, list | tuple):
        return type(config)(with_split(item, split, top) for item in config)
    return config


def _prepare(runner: Runner, dataloader: Any) -> Any:
    """Fill in the config of a data loader, and register the hooks that check the run."""
    for kind in (RunCheckHook, ResumeCheckHook, FiniteLossHook):
        if not any(isinstance(hook, kind) for hook in runner.hooks):
            runner.register_hook(kind())
    return with_split(dataloader, class_split(runner.model), runner.cfg)
