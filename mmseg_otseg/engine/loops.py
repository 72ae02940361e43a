"""mmengine's loops, which here give the data sets of a run the class split of its model.

A config names the split once, as ``model.split``. The Runner builds the model before any data, and
loops are where the two meet: they fill in the split of each :class:`ZeroShotDataset` that has none.
They also see to it that every run is checked, see :class:`RunCheckHook`.

The loops are registered in mmseg's registry under mmengine's own names, so that every config with
mmseg's default scope uses them, whichever tool runs it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mmengine import runner as mmengine_runner
from mmengine.config import ConfigDict
from mmengine.runner import Runner
from mmseg.registry import LOOPS

from mmseg_otseg.engine.hooks.run_check_hook import RunCheckHook
from mmseg_otseg.engine.parts import class_split
from mmseg_otseg.structures import SplitLike


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


def with_split(config: Any, split: SplitLike | None) -> Any:
    """A copy of a config in which every ``ZeroShotDataset`` without a split has this one.

    Args:
        config: Config of a data loader or a data set, or a part of one.
        split: The class split; None changes nothing.
    """
    if isinstance(config, Mapping):
        filled = ConfigDict({key: with_split(value, split) for key, value in config.items()})
        kind = filled.get("type")
        name = kind.split(".")[-1] if isinstance(kind, str) else getattr(kind, "__name__", None)
        if name == "ZeroShotDataset" and filled.get("split") is None and split is not None:
            filled.split = split
        return filled
    if isinstance(config, list | tuple):
        return type(config)(with_split(item, split) for item in config)
    return config


def _prepare(runner: Runner, dataloader: Any) -> Any:
    """The config of a data loader with the model's split; the run will be checked."""
    if not any(isinstance(hook, RunCheckHook) for hook in runner.hooks):
        runner.register_hook(RunCheckHook())
    return with_split(dataloader, class_split(runner.model))
