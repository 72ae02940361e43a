"""Transductive self-training: the model labels the pixels of unseen classes itself."""

from __future__ import annotations

from typing import Any

from mmengine.hooks import Hook
from mmengine.logging import print_log
from mmengine.runner import Runner
from mmseg.registry import HOOKS

from mmseg_otseg.engine.parts import neck
from mmseg_otseg.errors import UserError
from mmseg_otseg.structures import UNLABELED


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
        UserError: If ``begin`` is negative. Before training: if the model's neck is not a
            :class:`DLFANeck` or similar, the training dataset does not mark unlabeled pixels, no
            class is unseen, or self-training would begin at once with an untrained model or only
            after the last iteration.

    Source:
        OTSeg (arXiv 2403.14183), section 4.1, the transductive setting.
    """

    def __init__(self, begin: int) -> None:
        if begin < 0:
            raise UserError(f"begin must be 0 or more, got {begin}")
        self.begin = begin

    def before_train(self, runner: Runner) -> None:
        """Check that the run can be transductive."""
        if not hasattr(neck(runner.model), "train_classes"):
            raise UserError("SelfTrainingHook needs a model with a neck of type DLFANeck")
        meta = runner.train_dataloader.dataset.metainfo
        if meta.get("hide_as") != UNLABELED:
            raise UserError(
                "SelfTrainingHook needs a training dataset that marks the pixels of unseen "
                "classes: set setting='transductive' in its ZeroShotDataset"
            )
        if not meta["unseen"]:
            raise UserError(
                "SelfTrainingHook has nothing to label: the training data has no unseen class"
            )
        if self.begin >= runner.max_iters:
            raise UserError(
                f"self-training would never begin: default_hooks.self_training.begin={self.begin}, "
                f"and training ends after {runner.max_iters} iterations (train_cfg.max_iters)"
            )
        if self.begin == 0 and not runner._load_from and not runner._resume:
            raise UserError(
                "self-training from the first iteration on needs a trained model: give its "
                "checkpoint as load_from (--cfg-options load_from=CHECKPOINT), or increase begin"
            )

    def before_train_iter(self, runner: Runner, batch_idx: int, data_batch: Any = None) -> None:
        """Choose the classes of iteration ``runner.iter``."""
        text_neck = neck(runner.model)
        classes = "all" if runner.iter >= self.begin else "seen"
        if classes == "all" and text_neck.train_classes != "all":
            print_log(f"self-training from iteration {runner.iter} on", logger="current")
        text_neck.train_classes, text_neck.pseudo_labels = classes, classes == "all"
