"""Checks that the model, the data and the settings of a run fit each other."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mmengine.config import Config
from mmengine.evaluator import Evaluator
from mmengine.hooks import CheckpointHook, Hook
from mmengine.logging import print_log
from mmengine.runner import BaseLoop, Runner
from mmseg.registry import HOOKS

from mmseg_otseg.engine.hooks.self_training_hook import SelfTrainingHook
from mmseg_otseg.engine.idle_settings import check_no_idle_settings, warn_of_idle_pipelines
from mmseg_otseg.engine.parts import class_split, neck, segmentor
from mmseg_otseg.errors import UserError
from mmseg_otseg.evaluation import ZeroShotIoUMetric
from mmseg_otseg.structures import UNLABELED, ClassSplit

ZERO_SHOT_METRICS = ("mIoU_S", "mIoU_U", "hIoU")


@HOOKS.register_module(name=["RunCheckHook", "VocabularyCheckHook"])
class RunCheckHook(Hook):
    """Refuses to start a run whose settings contradict each other.

    With the text prompts of another dataset, or with a class that is labeled in training but
    counted as unseen by the metric, a run would finish with wrong numbers and no error. Other
    contradictions would appear only at the first validation, after hours. For models without text
    prompts, only the file names of label maps are checked. Every run with mmseg's loops has this
    hook; see :mod:`mmseg_otseg.engine.loops`.

    Checkpoints record the classes they were trained on with labels (``meta.trained_classes``). The
    hook passes them to the metric, so that none of them counts as unseen. Training may start from a
    checkpoint trained on all of the unseen classes, with a warning; testing such a checkpoint is
    refused.

    Raises:
        UserError: If the model and the data have different classes, a setting at the top level of
            the config has no effect, evaluation data hides labels, training data does not hide
            them, the setting of the training data does not fit the model or the hooks, a tested
            model was trained on all unseen classes, the best checkpoint is chosen by a metric that
            will not be computed, or label maps would overwrite each other.
    """

    def __init__(self) -> None:
        self.trained: frozenset[str] = frozenset()

    def before_run(self, runner: Runner) -> None:
        split = class_split(runner.model)
        if split is not None:
            check_no_idle_settings(runner.cfg, split)
            warn_of_idle_pipelines(runner.cfg)

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        self.trained = trained_classes(checkpoint.get("meta"))

    def before_train(self, runner: Runner) -> None:
        if class_split(runner.model) is None:
            return
        dataset = runner.train_dataloader.dataset
        _check_classes(runner.model, dataset, "the training data")
        _check_setting(runner, dataset)
        _warn_of_one_prompt(runner.model)
        if runner.val_loop is not None:
            self.before_val(runner)
            _check_best(runner)

    def before_val(self, runner: Runner) -> None:
        self._check_evaluation(runner, runner.val_dataloader, "validation", "val")

    def before_test(self, runner: Runner) -> None:
        _check_output(runner)
        self._check_evaluation(runner, runner.test_dataloader, "test", "test")

    def before_save_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        split = class_split(runner.model)
        if split is not None:
            now = split.classes if _is_supervised(runner.cfg) else split.seen_names
            checkpoint["meta"]["trained_classes"] = sorted(self.trained.union(now))

    def _check_evaluation(self, runner: Runner, dataloader: Any, what: str, part: str) -> None:
        split = class_split(runner.model)
        if split is None:
            return
        _check_classes(runner.model, dataloader.dataset, f"the {what} data")
        if getattr(dataloader.dataset, "metainfo", {}).get("hide_as") is not None:
            raise UserError(
                f"the labels of unseen classes are hidden in the {what} data: set test_mode=True "
                f"in the dataset that the ZeroShotDataset of {part}_dataloader wraps"
            )
        # The "supervised" setting trains all classes on purpose; both means are still reported.
        trained = frozenset() if _is_supervised(runner.cfg) else self.trained
        if split.unseen and trained.issuperset(split.unseen_names) and not _trains(runner):
            raise UserError(
                f"the model was trained with labels of {', '.join(split.unseen_names)}, which are "
                "all the classes that this config calls unseen. Test it with the split it was "
                "trained with, or remove these classes from `unseen`."
            )
        evaluator: Evaluator = getattr(runner, f"{part}_evaluator")
        for metric in evaluator.metrics:
            if isinstance(metric, ZeroShotIoUMetric):
                metric.dataset_meta = {**(metric.dataset_meta or {}), "trained": sorted(trained)}
                metric.reported_classes()  # raises if the data has no split or hides labels


def trained_classes(meta: Any) -> frozenset[str]:
    """The classes that a checkpoint was trained on with labels; empty if it does not say.

    Args:
        meta: The checkpoint's ``meta``. Checkpoints of version 0.1 record the classes only in the
            training data's ``dataset_meta``.
    """
    meta = meta if isinstance(meta, Mapping) else {}
    data = meta.get("dataset_meta") or {}
    names = meta.get("trained_classes")
    if names is None and isinstance(data, Mapping) and "seen" in data and "hide_as" in data:
        names = data.get("classes") or ()
        if data["hide_as"] is not None:
            names = [names[index] for index in data["seen"]]
    return frozenset(names or ())


def _check_classes(model: Any, dataset: Any, data: str) -> None:
    """Check that a dataset has the model's class split."""
    split, metainfo = class_split(model), getattr(dataset, "metainfo", {})
    names = metainfo.get("classes")
    if split is None or names is None:
        return
    unseen = metainfo.get("unseen")
    if unseen is None:  # a dataset that hides nothing: only the names can differ
        unseen = split.unseen if len(names) == split.num_classes else ()
    ClassSplit.agreed({"the model": split, data: ClassSplit(tuple(names), tuple(unseen))})
    num_classes = getattr(segmentor(model).decode_head, "num_classes", None)
    if num_classes is not None and num_classes != split.num_classes:
        raise UserError(
            f"model.decode_head.num_classes is {num_classes}, but the class split has "
            f"{split.num_classes} classes: set it to {split.num_classes}"
        )


def _check_setting(runner: Runner, dataset: Any) -> None:
    """Check that the model and hooks fit the training data's setting; pass it to the neck."""
    metainfo = getattr(dataset, "metainfo", {})
    if not metainfo.get("unseen"):
        return
    if getattr(dataset, "test_mode", False):
        raise UserError(
            "the training data has test_mode=True, so the labels of unseen classes are not hidden: "
            "remove it from the dataset that the ZeroShotDataset of train_dataloader wraps"
        )
    if any(isinstance(hook, SelfTrainingHook) for hook in runner.hooks):
        return  # this hook checks the data itself and decides which classes train
    if metainfo["hide_as"] == UNLABELED:
        raise UserError(
            "setting='transductive' of the training data needs default_hooks=dict(self_training="
            "dict(type='SelfTrainingHook', begin=ITERATION)): without it, the unlabeled pixels are "
            "not used"
        )
    classes = "all" if metainfo["hide_as"] is None else "seen"
    text_neck = neck(runner.model)
    text_neck.train_classes, text_neck.pseudo_labels = classes, False


def _warn_of_one_prompt(model: Any) -> None:
    """Warn if optimal transport has a single prompt per class to match."""
    head = segmentor(model).decode_head
    prompts = getattr(neck(model).text, "num_prompts", None)
    if prompts == 1 and getattr(head, "score_transport", None) == "sinkhorn":
        print_log(
            "The model has one prompt per class. Its plan is then the same for every image, and "
            "its logits are cosines between -1 and 1, a range in which training tends to find no "
            "class at all. Use several prompts (several copies of one keep the range of several), "
            "or ZegCLIPHead.",
            "current",
            logging.WARNING,
        )


def _check_output(runner: Runner) -> None:
    """Check that no two images would share the file of their label map."""
    folders = [getattr(metric, "output_dir", None) for metric in runner.test_evaluator.metrics]
    dataset: Any = runner.test_dataloader.dataset
    if not any(folders) or not hasattr(dataset, "get_data_info"):
        return
    paths: dict[str, str] = {}
    for index in range(len(dataset)):
        path = str(dataset.get_data_info(index)["img_path"])
        other = paths.setdefault(Path(path).stem, path)
        if other != path:
            raise UserError(
                f"the label maps of {other} and {path} would both be named {Path(path).stem}.png, "
                "because mmseg's metrics use the image's name without its folder. Leave out --out "
                "(output_dir), test one folder at a time, or use tools/segment.py, which keeps the "
                "folders."
            )


def _check_best(runner: Runner) -> None:
    """Check that the metric that selects the best checkpoint will be computed."""
    metrics = [m for m in runner.val_evaluator.metrics if isinstance(m, ZeroShotIoUMetric)]
    given = {name for metric in metrics for name in metric.names}
    asked = [
        name
        for hook in runner.hooks
        if isinstance(hook, CheckpointHook)
        for name in hook.save_best or ()
    ]
    for name in asked:
        if name in ZERO_SHOT_METRICS and name not in given:
            why = "no class is unseen" if metrics else "val_evaluator is not a ZeroShotIoUMetric"
            raise UserError(
                f"the best checkpoint is selected by {name}, but {why}: name unseen classes with "
                "model=dict(split=dict(unseen=[names])), or select it by another metric, "
                "default_hooks.checkpoint.save_best=mIoU"
            )


def _trains(runner: Runner) -> bool:
    """Whether this run trains; a validation may be part of it."""
    return isinstance(runner._train_loop, BaseLoop)


def _is_supervised(cfg: Config) -> bool:
    """Whether the setting of a config's training data is "supervised"."""
    loader = cfg.get("train_dataloader") or {}
    pending = [loader.get("dataset")]
    while pending:
        dataset = pending.pop()
        if isinstance(dataset, Mapping):
            if dataset.get("setting") == "supervised":
                return True
            pending += [dataset.get("dataset"), *(dataset.get("datasets") or ())]
    return False
