"""Refuses to resume from a checkpoint that does not fit the run."""

from __future__ import annotations

import logging
from itertools import chain
from typing import Any

from mmengine.hooks import Hook
from mmengine.logging import print_log
from mmengine.optim import OptimWrapper
from mmengine.runner import EpochBasedTrainLoop, Runner
from mmseg.registry import HOOKS

from mmseg_otseg.errors import UserError

# What optimizers keep for each parameter in the parameter's own shape.
PARAMETER_STATES = ("exp_avg", "exp_avg_sq", "momentum_buffer")
# Entries of a schedule that change with the steps or follow from others; the rest are settings.
PROGRESS = {"base_values", "last_step", "total_iters"}


@HOOKS.register_module()
class ResumeCheckHook(Hook):
    """Checks that a resumed run can continue from its checkpoint and has iterations left to train.

    mmengine loads optimizers and schedules without comparing them with the run's. A mismatch would
    end the run at the first step with an error that does not name the file, or would change the
    learning rates. A schedule that continues with other settings than the config's is reported.

    Raises:
        UserError: If the checkpoint does not say at which iteration it was saved, has no
            optimizer, has an optimizer or schedules of another model or config, or was trained for
            more iterations than this run has.
    """

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Compare the checkpoint with the run's optimizer, schedules and length."""
        if not runner._resume:
            return
        file, meta = runner._load_from, checkpoint["meta"]
        problem = _compare(runner, checkpoint)
        if problem:
            raise UserError(
                f"The run cannot be resumed from {file}: {problem}. Resume from a checkpoint of "
                "this config, or give the file as load_from to start with only its weights."
            )
        loop, key, unit = runner.train_loop, "max_iters", "iterations"
        done, length = meta["iter"], loop.max_iters
        if isinstance(loop, EpochBasedTrainLoop):
            done, length, key, unit = meta["epoch"], loop.max_epochs, "max_epochs", "epochs"
        message = (
            f"{file} was trained for {done} {unit}, and train_cfg.{key} is {length}: nothing is "
            f"left to train. To continue training, increase train_cfg.{key}"
        )
        if done > length:
            raise UserError(f"{message}. To evaluate it, use tools/test.py.")
        if done == length:
            print_log(f"{message}.", "current", logging.WARNING)


def _compare(runner: Runner, checkpoint: dict[str, Any]) -> str | None:
    """What keeps a run from continuing from a checkpoint; None if nothing does."""
    if not all(isinstance(checkpoint["meta"].get(key), int) for key in ("iter", "epoch")):
        return "it does not say at which iteration it was saved"
    saved = checkpoint.get("optimizer")
    if not isinstance(saved, dict):
        return "it holds no optimizer, as is the case for best_*.pth files"
    if not isinstance(runner.optim_wrapper, OptimWrapper):
        return None  # several optimizers; torch compares their groups itself
    groups = runner.optim_wrapper.optimizer.param_groups
    theirs = [group["params"] for group in saved.get("param_groups", [])]
    ours = [group["params"] for group in groups]
    if list(map(len, theirs)) != list(map(len, ours)):
        return "its optimizer trains other parameters than this model has"
    for number, parameter in zip(chain(*theirs), chain(*ours)):
        state = saved.get("state", {}).get(number, {})
        shapes = [state[name].shape for name in PARAMETER_STATES if state.get(name) is not None]
        if any(shape != parameter.shape for shape in shapes):
            return "its optimizer belongs to a model with parameters of other shapes"
    own, schedules = runner.param_schedulers or [], checkpoint.get("param_schedulers") or []
    if isinstance(own, dict):
        return None
    settings = [schedule.state_dict() for schedule in own]
    if [state.keys() for state in settings] != [state.keys() for state in schedules]:
        return "its schedules of the learning rate are of other types than the config's"
    changed = [
        f"{name} is {state[name]}, not {setting[name]} as in the config"
        for setting, state in zip(settings, schedules)
        for name in sorted(setting.keys() - PROGRESS)
        if not name.startswith("_") and setting[name] != state[name]
    ]
    if changed:
        print_log(
            f"The schedule of {runner._load_from} continues with its own settings: "
            f"{'; '.join(changed)}. To use the config's, start with only the file's weights, as "
            "load_from.",
            "current",
            logging.WARNING,
        )
    return None
