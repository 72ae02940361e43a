"""Stages of training: from the checkpoint of another run, and on pseudo labels."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

from mmengine.hooks import Hook
from mmengine.logging import print_log
from mmengine.optim import OptimWrapper
from mmengine.runner import Runner
from mmseg.registry import HOOKS

from mmseg_otseg.engine.checkpoint import trained_classes
from mmseg_otseg.engine.hooks.parts import neck, segmentor
from mmseg_otseg.errors import UserError


@HOOKS.register_module()
class FineTuneHook(Hook):
    """Adapts the ``load_from`` checkpoint to this run's classes, and logs which weights carry over.

    Trainable weights carry over by name and shape, whatever the classes are. Class-specific parts
    do not: text embeddings are recomputed, per-class contexts (:class:`LearnablePrompts` with
    ``per_class``) carry over only for the class names that both runs have, and a calibrated
    seen-class bias is dropped. If the checkpoint was trained with labels of this run's unseen
    classes, the hook warns. It does nothing when a run is resumed or tested.
    """

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Adapt the checkpoint to the run's classes before the model loads it."""
        trains = isinstance(getattr(runner, "optim_wrapper", None), OptimWrapper)
        if runner.cfg.get("resume") or not trains:
            return
        state = checkpoint.get("state_dict", checkpoint)
        meta = (checkpoint.get("meta") or {}).get("dataset_meta") or {}
        theirs = list(meta.get("classes") or ())
        notes = ["Optimizer and schedule start from the beginning."]
        for key in [key for key in state if ".calibrated_seen_bias." in key]:
            del state[key]
            notes.append("Its calibrated seen-class bias does not carry over.")
        text = getattr(neck(runner.model), "text", None)
        split: Any = getattr(text, "split", None)
        if text is not None and theirs and list(split.classes) != theirs:
            both = [name for name in split.classes if name in theirs]
            notes.append(
                f"It was trained on {len(theirs)} classes ({_some(theirs)}), of which this run has "
                f"{_some(both) if both else 'none'}. Text embeddings are recomputed for this run's "
                "names."
            )
            if getattr(text, "per_class", False):
                contexts = state["neck.text.contexts"]
                state["neck.text.contexts"] = text.contexts_from(theirs, contexts)
                state["neck.text.vocabulary_digest"] = text.vocabulary_digest.cpu()
        shapes = {key.removeprefix("module."): getattr(v, "shape", 0) for key, v in state.items()}
        weights = {
            name: weight
            for name, weight in segmentor(runner.model).named_parameters()
            if weight.requires_grad
        }
        total = sum(weight.numel() for weight in weights.values())
        anew = [name for name, weight in weights.items() if shapes.get(name) != weight.shape]
        carried = total - sum(weights[name].numel() for name in anew)
        print_log(
            f"Training starts from {runner.cfg.get('load_from')}: {carried:,} of {total:,} "
            f"trainable weights carry over{f', but not {_some(anew)}' if anew else ''}. "
            f"{' '.join(notes)}",
            "current",
        )
        known = trained_classes(checkpoint.get("meta"))
        leaked = [name for name in getattr(split, "unseen_names", ()) if name in known]
        if leaked:
            print_log(
                f"The checkpoint was trained with labels of {_some(leaked)}, which are unseen "
                "classes in this run: their results will not be zero-shot.",
                "current",
                logging.WARNING,
            )


def _some(names: Sequence[str]) -> str:
    """The names, or the first five of many."""
    more = f" and {len(names) - 5} more" if len(names) > 5 else ""
    return ", ".join(names[:5]) + more


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
        UserError: If ``begin`` is negative, or 0 and training starts from an untrained model.

    Source:
        OTSeg (arXiv 2403.14183), section 4.1, the transductive setting.
    """

    def __init__(self, begin: int) -> None:
        if begin < 0:
            raise UserError(f"begin must be 0 or more, got {begin}")
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
