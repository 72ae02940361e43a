"""Refuses to resume what does not belong to the run."""

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

# What changes from step to step, or follows from the rest; all else of a schedule is a setting.
PROGRESS = {"base_values", "last_step", "total_iters"}


@HOOKS.register_module()
class ResumeCheckHook(Hook):
    """Checks that a resumed run can go on from its checkpoint, and has something left to train.

    mmengine loads optimizer and schedules as they come. What does not belong to the run would end
    it at the first step, with an error that does not name the file, or let it train with other
    learning rates. Every run of mmseg's loops has this hook, see :mod:`mmseg_otseg.engine.loops`.

    Raises:
        ValueError: The checkpoint holds no optimizer, or one of another model, another kind, or
            with values that cannot be stepped; likewise schedules; or it is from beyond the run's
            end.
    """

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Load the optimizer, and try it."""
        wrapper = getattr(runner, "optim_wrapper", None)
        if not runner._resume or not isinstance(wrapper, OptimWrapper | OptimWrapperDict):
            return
        file, saved = str(runner._load_from), checkpoint.get("optimizer")
        try:
            if not saved:
                raise ValueError("it holds no optimizer, like the files of the best weights")
            _load(wrapper, saved)
            _check_schedules(runner.param_schedulers, checkpoint.get("param_schedulers"), file)
        except Exception as error:  # an optimizer can raise anything at what is not its own
            missing = "there is no " if isinstance(error, KeyError) else ""
            reason = missing + (str(error) or type(error).__name__).splitlines()[0][:300]
            raise ValueError(
                f"The run cannot be resumed from {file}: {reason}. Resume from a checkpoint of "
                "this config, or give the file as load_from, which starts with its weights alone."
            ) from error

    def before_train(self, runner: Runner) -> None:
        """Compare what was trained with what is to be."""
        loop, unit = runner.train_loop, "iterations"
        done, length, key = runner.iter, loop.max_iters, "max_iters"
        if isinstance(loop, EpochBasedTrainLoop):
            done, length, key, unit = runner.epoch, loop.max_epochs, "max_epochs", "epochs"
        told = (
            f"{runner._load_from} was trained for {done} {unit}, and train_cfg.{key} is {length}: "
            f"nothing is left to train. To train on, set train_cfg.{key} higher"
        )
        if done > length:
            raise ValueError(f"{told}. To measure it, use tools/test.py.")
        if done == length:
            print_log(f"{told}.", "current", logging.WARNING)


def _load(wrapper: Any, saved: Any) -> None:
    if isinstance(wrapper, OptimWrapperDict):
        for name, one in wrapper.items():
            _load(one, saved[name])
        return
    wrapper.load_state_dict(dict(saved))  # a copy: mmengine takes out what is its own
    # Others, such as those that keep their state in several processes, cannot be tried alone.
    if type(wrapper.optimizer).__module__.startswith("torch.optim."):
        _try_steps(wrapper.optimizer)


def _try_steps(optimizer: Optimizer) -> None:
    """Let each group of parameters make a step on a single number, and look at what it keeps."""
    trial, expected = copy.copy(optimizer), {}
    for group in optimizer.param_groups:
        number = torch.zeros(1, device=group["params"][0].device, requires_grad=True)
        number.grad = torch.zeros_like(number)
        trial.param_groups = [{**group, "params": [number]}]
        trial.state = defaultdict(dict)
        try:
            trial.step()
        except Exception as error:
            raise ValueError(f"its optimizer cannot make a step ({error!r:.100})") from error
        if not number.isfinite().all():
            raise ValueError(
                f"its optimizer makes steps that are not finite (learning rate {group.get('lr')})"
            )
        expected = trial.state[number]
        for parameter in group["params"]:
            _check_state(optimizer.state.get(parameter), expected, parameter)
    if expected and not optimizer.state:
        raise ValueError("its optimizer has no state of any parameter")


def _check_state(state: Any, expected: Mapping[str, Any], parameter: Tensor) -> None:
    for name, example in expected.items() if state else ():
        value = state[name]
        if isinstance(example, Tensor):
            fits = isinstance(value, Tensor) and _fits(value.shape, parameter.shape)
        else:
            fits = isinstance(value, type(example)) or example is None or value is None
        if not fits:
            raise ValueError(f"'{name}' of its optimizer does not fit this model's parameters")
        if isinstance(value, Tensor) and not value.isfinite().all():
            raise ValueError(f"'{name}' of its optimizer holds NaN or infinity")


def _fits(shape: torch.Size, whole: torch.Size) -> bool:
    """Whether a tensor belongs to a parameter, entry by entry or summed up along some axes."""
    if len(shape) > len(whole):
        return False
    return all(own in (1, full) for own, full in zip(reversed(shape), reversed(whole)))


def _check_schedules(own: Any, saved: Any, file: str) -> None:
    if isinstance(own, dict):  # one list for each of several optimizers
        for name, schedules in own.items():
            _check_schedules(schedules, (saved or {})[name], file)
        return
    own, saved = own or [], saved or []
    if not isinstance(saved, list) or len(saved) != len(own):
        raise ValueError(f"it holds {len(saved)} schedules, the config {len(own)}")
    for schedule, state in zip(own, saved):
        settings = schedule.state_dict()
        kind = type(schedule).__name__
        if not isinstance(state, dict) or state.keys() != settings.keys():
            raise ValueError(f"its schedule is no {kind}")
        wrong = [name for name, value in settings.items() if not _same_form(value, state[name])]
        if wrong:
            raise ValueError(f"'{wrong[0]}' of its schedule is none of a {kind}")
        changed = list(_changed(settings, state))
        if changed:
            print_log(
                f"The schedule of {file} goes on as it was begun: {'; '.join(changed)}. To have "
                "the config's, start with the file's weights alone, as load_from.",
                "current",
                logging.WARNING,
            )


def _changed(settings: Mapping[str, Any], state: Mapping[str, Any]) -> Iterator[str]:
    for name in sorted(settings.keys() - PROGRESS):
        if not name.startswith("_") and settings[name] != state[name]:
            yield f"{name} is {state[name]}, not the config's {settings[name]}"


def _same_form(own: Any, saved: Any) -> bool:
    """Whether a saved value is of the kind of a schedule's own: a finite number for a number."""
    if own is None or isinstance(own, bool):
        return saved is None or isinstance(saved, bool)
    if isinstance(own, int | float):
        whole = not isinstance(saved, bool) and isinstance(saved, int | float)
        return whole and (math.isfinite(saved) or saved == own)
    if isinstance(own, list | tuple):
        fits = isinstance(saved, list | tuple) and len(saved) == len(own)
        return fits and all(map(_same_form, own, saved))
    return isinstance(saved, type(own))
