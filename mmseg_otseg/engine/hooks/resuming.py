"""Resumed runs that end as if they had not been interrupted, or are refused."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import torch
from mmengine.dist import get_rank, get_world_size
from mmengine.hooks import Hook
from mmengine.optim import OptimWrapper
from mmengine.runner import Runner
from mmseg.registry import HOOKS

from mmseg_otseg.errors import UserError

# Entries of a schedule that change with the steps or follow from others; the rest are settings.
PROGRESS = {"base_values", "last_step", "total_iters"}


@HOOKS.register_module()
class ResumeCheckHook(Hook):
    """Checks that a resumed run can continue from its checkpoint and has iterations left to train.

    mmengine loads optimizers and schedules without comparing them with the run's. A mismatch would
    end the run at the first step with an error that does not name the file, or would change the
    learning rates. Other settings of the config than the checkpoint's are reported: schedules
    and learning rates continue as in the checkpoint, images per step as in the config.

    Raises:
        UserError: If the checkpoint does not say at which iteration it was saved, has no
            optimizer, has an optimizer or schedules of another model or config, or was trained for
            more iterations than this run has.
    """

    def before_save_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Record the number of images per step."""
        checkpoint["meta"]["images_per_step"] = _images_per_step(runner)

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Compare the checkpoint with the run's optimizer, schedules and length."""
        if not runner.cfg.get("resume") or not isinstance(runner.optim_wrapper, OptimWrapper):
            return
        file, meta = runner.cfg.get("load_from"), checkpoint["meta"]
        if problem := _mismatch(runner, checkpoint):
            raise UserError(
                f"The run cannot be resumed from {file}: {problem}. Resume from a checkpoint of "
                "this config, or give the file as load_from to start with only its weights."
            )
        if changed := _changed_settings(runner, checkpoint):
            runner.logger.warning(
                f"The schedule of {file} continues with its own settings: {'; '.join(changed)}. To "
                "use the config's, start with only the file's weights, as load_from."
            )
        before, now = meta.get("images_per_step"), _images_per_step(runner)
        if before not in (None, now):
            runner.logger.warning(
                f"{file} was trained with {before} images per step in all processes, and the run "
                f"continues with {now}, at the same learning rate and on other images than an "
                "uninterrupted run. Set train_dataloader.batch_size if that is not what you want."
            )
        done, length = meta["iter"], runner.train_loop.max_iters
        message = (
            f"{file} was trained for {done} iterations, and train_cfg.max_iters is {length}: "
            "nothing is left to train. To continue training, increase train_cfg.max_iters"
        )
        if done > length:
            raise UserError(f"{message}. To evaluate it, use tools/test.py.")
        if done == length:
            runner.logger.warning(f"{message}.")


def _images_per_step(runner: Runner) -> int | None:
    """Images per step of all processes together; None if the batches are not of one size."""
    size = getattr(runner.train_dataloader, "batch_size", None)
    return size and size * get_world_size()


def _mismatch(runner: Runner, checkpoint: dict[str, Any]) -> str | None:
    """What keeps a run from continuing from a checkpoint; None if nothing does."""
    if not all(isinstance(checkpoint["meta"].get(key), int) for key in ("iter", "epoch")):
        return "it does not say at which iteration it was saved"
    if not isinstance(checkpoint.get("optimizer"), dict):
        return "it holds no optimizer, as is the case for best_*.pth files"
    theirs, own = (
        [len(group["params"]) for group in groups] for groups in _param_groups(runner, checkpoint)
    )
    if theirs != own:
        return "its optimizer trains other parameters than this model has"
    if any(state.keys() != saved.keys() for state, saved in _schedules(runner, checkpoint)):
        return "its schedules of the learning rate are of other types than the config's"
    return None


def _changed_settings(runner: Runner, checkpoint: dict[str, Any]) -> list[str]:
    """The settings of optimizer and schedules in which a checkpoint differs from the config."""
    changed = [
        f"{name} is {saved[name]}, not {own[name]} as in the config"
        for own, saved in _schedules(runner, checkpoint)
        for name in sorted(own.keys() - PROGRESS)
        if not name.startswith("_") and own[name] != saved[name]
    ]
    rates = (
        [group.get("initial_lr", group["lr"]) for group in groups]
        for groups in _param_groups(runner, checkpoint)
    )
    # Groups have factors, so only the ratio is plain.
    ratios = [saved / own for saved, own in zip(*rates) if saved != own and own]
    return [*changed, *(f"lr is {ratio:g} times that of the config" for ratio in ratios[:1])]


def _param_groups(runner: Runner, checkpoint: dict[str, Any]) -> tuple[Any, Any]:
    """The parameter groups of a checkpoint's optimizer and of the run's."""
    optimizer: Any = runner.optim_wrapper.optimizer
    return checkpoint["optimizer"].get("param_groups", []), optimizer.param_groups


def _schedules(runner: Runner, checkpoint: dict[str, Any]) -> list[tuple[dict, dict]]:
    """The states of the run's schedules, each with that of the checkpoint's; empty if missing."""
    own = [schedule.state_dict() for schedule in runner.param_schedulers or []]
    return list(itertools.zip_longest(own, checkpoint.get("param_schedulers") or [], fillvalue={}))


@HOOKS.register_module()
class IterationSeedHook(Hook):
    """Seed torch (every device) before each training iteration from (run seed, rank, iteration).

    A checkpoint does not hold the state of the random generators, so a resumed run would draw
    different dropout masks than the run it continues. With this hook, the masks do not depend on
    earlier random numbers. The augmentations are seeded by ``ReproducibleInfiniteSampler``; a run
    that resumes without it is told so.

    Each process draws different masks. One process with batches of 4 and two with batches of 2 see
    the same samples but drop different units, so with dropout their results differ as if they had
    different seeds.
    """

    priority = "VERY_LOW"  # after every hook that draws random numbers

    def before_train(self, runner: Runner) -> None:
        """Say what a resumed run does not repeat."""
        if runner.iter > 0 and not getattr(runner.train_dataloader.sampler, "seeds", False):
            runner.logger.warning(
                "The resumed run augments its images in another way than an uninterrupted one, "
                "because the random numbers do not come from the sampler: use "
                "sampler.type='ReproducibleInfiniteSampler' with a ZeroShotDataset as the "
                "outermost dataset."
            )

    def before_train_iter(self, runner: Runner, *_: Any, **__: Any) -> None:
        """Seed the generators of iteration ``runner.iter`` (counted from 0)."""
        torch.manual_seed(iteration_seed(runner.seed, get_rank(), runner.iter))


def iteration_seed(seed: int, rank: int, iteration: int) -> int:
    """A 64-bit hash of the arguments, so that successive iterations get uncorrelated seeds."""
    return int(np.random.SeedSequence([seed, rank, iteration]).generate_state(1, np.uint64)[0])
