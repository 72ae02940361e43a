"""How a run starts or resumes, draws random numbers, and trains on pseudo labels."""

from __future__ import annotations

import logging
from typing import Any

import numpy as np
import torch
from mmengine.dist import get_rank, get_world_size
from mmengine.hooks import Hook
from mmengine.logging import print_log
from mmengine.optim import OptimWrapper
from mmengine.runner import Runner
from mmseg.registry import HOOKS

from mmseg_otseg.engine.checkpoint import trained_classes
from mmseg_otseg.errors import UserError, listed
from mmseg_otseg.structures import ClassSplit

# Entries of a schedule that change with the steps or follow from others; the rest are settings.
PROGRESS = {"base_values", "last_step", "total_iters"}


def segmentor(model: Any) -> Any:
    """The segmentor inside the wrappers for several processes and for test-time augmentation."""
    while hasattr(model, "module"):
        model = model.module
    return model


def neck(model: Any) -> Any:
    """The neck of a model; None if it has none."""
    return getattr(segmentor(model), "neck", None)


def class_split(model: Any) -> ClassSplit | None:
    """The class split of a model's text prompts; None if it has no text prompts."""
    split = getattr(getattr(neck(model), "text", None), "split", None)
    return split if isinstance(split, ClassSplit) else None


@HOOKS.register_module()
class ResumeCheckHook(Hook):
    """Says how a resumed run differs from the config, and refuses one with another optimizer.

    mmengine loads optimizers and schedules without comparing them with the run's: schedules and
    learning rates continue as in the checkpoint. Above all, a schedule still ends where that of the
    checkpoint ended if ``max_iters`` is increased.

    Raises:
        UserError: If the checkpoint holds no optimizer, or that of another model.
    """

    def before_save_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Note the images per step."""
        checkpoint["meta"]["images_per_step"] = _images_per_step(runner)

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Compare the checkpoint with the run's optimizer, schedules, batches and length."""
        if not runner.cfg.get("resume") or not isinstance(runner.optim_wrapper, OptimWrapper):
            return
        file, done = runner.cfg.get("load_from"), checkpoint["meta"].get("iter", 0)
        optimizer: Any = runner.optim_wrapper.optimizer
        if "optimizer" not in checkpoint:
            problem = "it holds no optimizer, as is the case for best_*.pth files"
        elif _sizes(checkpoint["optimizer"]["param_groups"]) != _sizes(optimizer.param_groups):
            problem = "it is of another config, in which other parameters train"
        else:
            problem = ""
        if problem:
            raise UserError(
                f"The run cannot be resumed from {file}: {problem}. Resume from an iter_*.pth of "
                "this config, or give the file as load_from to start with only its weights."
            )
        if changed := _changed_settings(runner, checkpoint):
            runner.logger.warning(
                f"The schedule of {file} continues with its own settings: {'; '.join(changed)}. To "
                "use the config's, start with only the file's weights, as load_from."
            )
        now, saved = _images_per_step(runner), checkpoint["meta"].get("images_per_step")
        if saved not in (None, now):
            runner.logger.warning(
                f"{file} was trained with {saved} images per step, but this run has {now} (batch "
                "size times processes): it continues at another place in the data, and the "
                "learning rate may not fit. To continue as before, change "
                "train_dataloader.batch_size."
            )
        if done >= runner.train_loop.max_iters:
            runner.logger.warning(
                f"{file} was trained for {done} iterations: nothing is left to train. To continue, "
                f"increase train_cfg.max_iters, which is {runner.train_loop.max_iters}."
            )


def _images_per_step(runner: Runner) -> int | None:
    """Images of a training step in all processes; None if the batches are of a batch sampler."""
    size = runner.train_dataloader.batch_size
    return size and size * get_world_size()


def _sizes(groups: list[dict[str, Any]]) -> list[int]:
    """The number of parameters in each group of an optimizer."""
    return [len(group["params"]) for group in groups]


def _changed_settings(runner: Runner, checkpoint: dict[str, Any]) -> list[str]:
    """The settings of optimizer and schedules in which a checkpoint differs from the config."""
    schedules = [schedule.state_dict() for schedule in runner.param_schedulers or []]
    changed = [
        f"{name} is {saved.get(name)}, not {own[name]} as in the config"
        for own, saved in zip(schedules, checkpoint.get("param_schedulers") or [])
        for name in sorted(own.keys() - PROGRESS)
        if not name.startswith("_") and own[name] != saved.get(name)
    ]
    optimizer: Any = runner.optim_wrapper.optimizer
    groups = zip(checkpoint["optimizer"]["param_groups"], optimizer.param_groups)
    rates = [[group.get("initial_lr", group["lr"]) for group in pair] for pair in groups]
    # Groups have factors, so only the ratio is plain.
    ratios = [saved / own for saved, own in rates if saved != own and own]
    return [*changed, *(f"lr is {ratio:g} times that of the config" for ratio in ratios[:1])]


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
        # A hash, so that successive iterations get uncorrelated seeds.
        sequence = np.random.SeedSequence([runner.seed, get_rank(), runner.iter])
        torch.manual_seed(int(sequence.generate_state(1, np.uint64)[0]))


@HOOKS.register_module()
class FineTuneHook(Hook):
    """Adapts the ``load_from`` checkpoint to this run's classes, and logs what carries over.

    Trainable weights carry over by name and shape, whatever the classes are; which of them the file
    lacks is logged when they are loaded. Class-specific parts do not carry over: text embeddings
    are recomputed, per-class contexts (:class:`LearnablePrompts` with ``per_class``) are taken only
    for the class names that both runs have, and a calibrated seen-class bias is dropped. If the
    checkpoint was trained with labels of this run's unseen classes, the hook warns. It does nothing
    when a run is resumed or tested.
    """

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Adapt the checkpoint to the run's classes before the model loads it."""
        trains = isinstance(getattr(runner, "optim_wrapper", None), OptimWrapper)
        if runner.cfg.get("resume") or not trains:
            return
        state = checkpoint.get("state_dict", checkpoint)
        meta = (checkpoint.get("meta") or {}).get("dataset_meta") or {}
        theirs = list(meta.get("classes") or ())
        file = runner.cfg.get("load_from")
        notes = [f"Training starts from {file}, its optimizer and schedule from the beginning."]
        for key in [key for key in state if ".calibrated_seen_bias." in key]:
            del state[key]
            notes.append("The file's calibrated seen-class bias does not carry over.")
        text = getattr(neck(runner.model), "text", None)
        split: Any = getattr(text, "split", None)
        if text is not None and theirs and list(split.classes) != theirs:
            both = [name for name in split.classes if name in theirs]
            notes.append(
                f"The file was trained on {len(theirs)} classes ({listed(theirs)}), of which this "
                f"run has {listed(both) if both else 'none'}. Text embeddings are recomputed."
            )
            if getattr(text, "per_class", False):
                contexts = state["neck.text.contexts"]
                state["neck.text.contexts"] = text.contexts_from(theirs, contexts)
                state["neck.text.vocabulary_digest"] = text.vocabulary_digest.cpu()
        print_log(" ".join(notes), "current")
        known = trained_classes(checkpoint.get("meta"))
        leaked = [name for name in getattr(split, "unseen_names", ()) if name in known]
        if leaked:
            print_log(
                f"The checkpoint was trained with labels of {listed(leaked)}, which are unseen "
                "classes in this run: their results will not be zero-shot.",
                "current",
                logging.WARNING,
            )


@HOOKS.register_module()
class SelfTrainingHook(Hook):
    """Trains on all classes from a given iteration on, using pseudo labels for unlabeled pixels.

    Before ``begin``, the neck makes queries for the seen classes only, and unlabeled pixels
    belong to no class. From ``begin`` on, it makes queries for all classes, and the head assigns
    each unlabeled pixel its best unseen class. The stage depends on the iteration number only, so
    a resumed run is in the right stage.

    Args:
        begin: First iteration (counted from 0) of self-training.

    Raises:
        UserError: If ``begin`` is 0 and training starts from an untrained model.

    Source:
        OTSeg (arXiv 2403.14183), section 4.1, the transductive setting.
    """

    def __init__(self, begin: int) -> None:
        self.begin = begin

    def before_train(self, runner: Runner) -> None:
        """Check that there is a trained model to begin with."""
        if self.begin == 0 and runner.iter == 0 and not runner.cfg.get("load_from"):
            raise UserError(
                "self-training from the first iteration on needs a trained model: give its "
                "checkpoint as load_from (--cfg-options load_from=CHECKPOINT), or increase begin"
            )

    def before_train_iter(self, runner: Runner, batch_idx: int, data_batch: Any = None) -> None:
        """Choose the classes of iteration ``runner.iter``."""
        text_neck = segmentor(runner.model).neck
        if runner.iter >= self.begin and text_neck.train_classes != "pseudo":
            runner.logger.info(f"self-training from iteration {runner.iter} on")
        text_neck.train_classes = "seen" if runner.iter < self.begin else "pseudo"
