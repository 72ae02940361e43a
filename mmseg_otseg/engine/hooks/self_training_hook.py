"""Transductive self-training: the model labels the pixels of unseen classes itself."""

from __future__ import annotations

from typing import Any

from mmengine.hooks import Hook
from mmengine.logging import print_log
from mmengine.runner import Runner
from mmseg.registry import HOOKS

from mmseg_otseg.engine.parts import neck
from mmseg_otseg.errors import UserError


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
        text_neck, trains_itself = neck(runner.model), runner.iter >= self.begin
        if trains_itself and not text_neck.pseudo_labels:
            print_log(f"self-training from iteration {runner.iter} on", logger="current")
        text_neck.train_classes = "all" if trains_itself else "seen"
        text_neck.pseudo_labels = trains_itself
