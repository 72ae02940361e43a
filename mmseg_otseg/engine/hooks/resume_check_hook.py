"""Refuses to resume from a checkpoint that does not fit the run."""

from __future__ import annotations

import copy
import logging
import math
from collections import defaultdict
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from mmengine.hooks import Hook
from mmengine.logging import print_log
from mmengine.optim import OptimWrapper, OptimWrapperDict
from mmengine.runner import EpochBasedTrainLoop, Runner
from mmseg.registry import HOOKS
from torch import Tensor
from torch.optim import Optimizer

from mmseg_otseg.errors import UserError

# Entries of a schedule that change with the steps or follow from others; the rest are settings.
PROGRESS = {"base_values", "last_step", "total_iters"}


@HOOKS.register_module()
class ResumeCheckHook(Hook):
    """Checks that a resumed run can continue from its checkpoint and has iterations left to train.

    mmengine loads optimizers and schedules without checking them. A mismatch would end the run at
    the first step with an error that does not name the file, or would change the learning rates.
    Every run with mmseg's loops has this hook; see :mod:`mmseg_otseg.engine.loops`.

    Raises:
        UserError: If the checkpoint has no optimizer; if its optimizer or schedules are of another
            model or type, or have invalid values; or if it was trained for more iterations than
            this run has.
    """

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Load the optimizer and try a step with it."""
        wrapper = getattr(runner, "optim_wrapper", None)
        if not runner._resume or not isinstance(wrapper, OptimWrapper | OptimWrapperDict):
            return
        file, saved = str(runner._load_from), checkpoint.get("optimizer")
        try:
            if not saved:
                raise UserError("it holds no optimizer, as is the case for best_*.pth files")
            _load(wrapper, saved)
            _check_schedules(runner.param_schedulers, checkpoint.get("param_schedulers"), file)
        except Exception as error:  # an optimizer can raise any error for a foreign state
            missing = "there is no " if isinstance(error, KeyError) else ""
            reason = missing + (str(error) or type(error).__name__).splitlines()[0][:300]
            raise UserError(
                f"The run cannot be resumed from {file}: {reason}. Resume from a checkpoint of "
                "this config, or give the file as load_from to start with only its weights."
            ) from error

    def before_train(self, runner: Runner) -> None:
        """Compare the length of the run with the number of steps that the checkpoint has."""
        loop, unit = runner.train_loop, "iterations"
        done, length, key = runner.iter, loop.max_iters, "max_iters"
        if isinstance(loop, EpochBasedTrainLoop):
            done, length, key, unit = runner.epoch, loop.max_epochs, "max_epochs", "epochs"
        told = (
            f"{runner._load_from} was trained for {done} {unit}, and train_cfg.{key} is {length}: "
            f"nothing is left to train. To continue training, increase train_cfg.{key}"
        )
        if done > length:
            raise UserError(f"{told}. To evaluate it, use tools/test.py.")
        if done == length:
            print_log(f"{told}.", "current", logging.WARNING)


def _load(wrapper: Any, saved: Any) -> None:
    if isinstance(wrapper, OptimWrapperDict):
        for name, one in wrapper.items():
            _load(one, saved[name])
        return
    wrapper.load_state_dict(dict(saved))  # a copy, because mmengine removes its own entries
    # Other optimizers, such as those sharded over several processes, cannot be tried alone.
    if type(wrapper.optimizer).__module__.startswith("torch.optim."):
        _try_steps(wrapper.optimizer)


def _try_steps(optimizer: Optimizer) -> None:
    """Try a step of each parameter group on a single number, and check the loaded state."""
    trial, expected = copy.copy(optimizer), {}
    for group in optimizer.param_groups:
        number = torch.zeros(1, device=group["params"][0].device, requires_grad=True)
        number.grad = torch.zeros_like(number)
        trial.param_groups = [{**group, "params": [number]}]
        trial.state = defaultdict(dict)
        try:
            trial.step()
        except Exception as error:
            raise UserError(f"its optimizer cannot make a step ({error!r:.100})") from error
        if not number.isfinite().all():
            raise UserError(
                f"its optimizer makes steps that are not finite (learning rate {group.get('lr')})"
            )
        expected = trial.state[number]
        for parameter in group["params"]:
            _check_state(optimizer.state.get(parameter), expected, parameter)
    if expected and not optimizer.state:
        raise UserError("its optimizer has no state for any parameter")


def _check_state(state: Any, expected: Mapping[str, Any], parameter: Tensor) -> None:
    for name, example in expected.items() if state else ():
        value = state[name]
        if isinstance(example, Tensor):
            fits = isinstance(value, Tensor) and _fits(value.shape, parameter.shape)
        else:
            fits = isinstance(value, type(example)) or example is None or value is None
        if not fits:
            raise UserError(f"'{name}' of its optimizer does not fit this model's parameters")
        if isinstance(value, Tensor) and not value.isfinite().all():
            raise UserError(f"'{name}' of its optimizer holds NaN or infinity")


def _fits(shape: torch.Size, whole: torch.Size) -> bool:
    """Whether a state tensor fits a parameter's shape, perhaps reduced along some axes."""
    if len(shape) > len(whole):
        return False
    return all(own in (1, full) for own, full in zip(reversed(shape), reversed(whole)))


def _check_schedules(own: Any, saved: Any, file: str) -> None:
    if isinstance(own, dict):  # one list per optimizer
        for name, schedules in own.items():
            _check_schedules(schedules, (saved or {})[name], file)
        return
    own, saved = own or [], saved or []
    if not isinstance(saved, list) or len(saved) != len(own):
        raise UserError(f"it holds {len(saved)} schedules, but the config has {len(own)}")
    for schedule, state in zip(own, saved):
        settings = schedule.state_dict()
        kind = type(schedule).__name__
        if not isinstance(state, dict) or state.keys() != settings.keys():
            raise UserError(f"its schedule is not a {kind}")
        wrong = [name for name, value in settings.items() if not _same_form(value, state[name])]
        if wrong:
            raise UserError(f"'{wrong[0]}' of its schedule is not valid for a {kind}")
        changed = list(_changed(settings, state))
        if changed:
            print_log(
                f"The schedule of {file} continues with its own settings: {'; '.join(changed)}. To "
                "use the config's, start with only the file's weights, as load_from.",
                "current",
                logging.WARNING,
            )


def _changed(settings: Mapping[str, Any], state: Mapping[str, Any]) -> Iterator[str]:
    for name in sorted(settings.keys() - PROGRESS):
        if not name.startswith("_") and settings[name] != state[name]:
            yield f"{name} is {state[name]}, not {settings[name]} as in the config"


def _same_form(own: Any, saved: Any) -> bool:
    """Whether a saved value has the type of the schedule's own value; numbers must be finite."""
    if own is None or isinstance(own, bool):
        return saved is None or isinstance(saved, bool)
    if isinstance(own, int | float):
        whole = not isinstance(saved, bool) and isinstance(saved, int | float)
        return whole and (math.isfinite(saved) or saved == own)
    if isinstance(own, list | tuple):
        fits = isinstance(saved, list | tuple) and len(saved) == len(own)
        return fits and all(map(_same_form, own, saved))
    return isinstance(saved, type(own))
