"""Stops a run that would give wrong numbers, or none: the model must fit data and checkpoint."""

from __future__ import annotations

from hashlib import sha256
from pathlib import Path
from typing import Any

import torch
from mmengine.hooks import Hook
from mmengine.optim import AmpOptimWrapper
from mmengine.runner import Runner
from mmseg.registry import HOOKS
from torch import Tensor

from mmseg_otseg.engine.checkpoint import trained_classes
from mmseg_otseg.engine.config import check_setting
from mmseg_otseg.engine.hooks.stages import SelfTrainingHook, class_split, neck, segmentor
from mmseg_otseg.engine.optimizers import WarmupPolyLR
from mmseg_otseg.errors import UserError
from mmseg_otseg.structures import ClassSplit, unlabeled_label

MAX_SGD_LR = 1e-3
ADVICE = (
    "Usual causes: a learning rate that is too high (optim_wrapper.optimizer.lr, or gradients "
    "without optim_wrapper.clip_grad), half precision without a loss scale, or weights that were "
    "already damaged. Fix the cause, then continue with --resume from the last checkpoint, if "
    "there is one; it is intact."
)


@HOOKS.register_module()
class RunCheckHook(Hook):
    """Refuses a run whose model does not fit its data or its checkpoint.

    With the text prompts of another dataset, or with a class that is labeled in training but
    counted as unseen by the metric, a run would finish with wrong numbers and no error. What can be
    known from the config alone is checked by :func:`~mmseg_otseg.engine.resolve` before.

    Checkpoints record the classes they were trained on with labels (``meta.trained_classes``). The
    hook passes them to the metrics, so that none of them counts as unseen, and whether the
    seen-class bias is calibrated. Training may start from a checkpoint trained on all of the unseen
    classes; testing such a checkpoint is refused.

    Raises:
        UserError: If the model and the data have different classes, evaluation data hides labels,
            the training data does not fit the classes that train, a tested model was trained on all
            unseen classes, images of an evaluated batch differ in size, or label maps would
            overwrite each other.
    """

    def __init__(self) -> None:
        self.trained: frozenset[str] = frozenset()
        self.calibrated_on: str | None = None

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        self.trained = trained_classes(checkpoint.get("meta"))
        self.calibrated_on = (checkpoint.get("meta") or {}).get("calibrated_on")

    def before_save_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        split = class_split(runner.model)
        if split is not None:
            now = split.classes if _uses_all_labels(runner.model) else split.seen_names
            checkpoint["meta"]["trained_classes"] = sorted(self.trained.union(now))

    def before_train(self, runner: Runner) -> None:
        if class_split(runner.model) is None:
            return
        _check_classes(runner.model, runner.train_dataloader.dataset, "the training data")
        _check_setting(runner)
        _warn_of_settings(runner)
        if runner.val_loop is not None:
            self.before_val(runner)  # now, not after hours

    def before_val(self, runner: Runner) -> None:
        self._check_evaluation(runner, runner.val_dataloader, runner.val_evaluator, True)

    def before_test(self, runner: Runner) -> None:
        _check_output(runner)
        self._check_evaluation(runner, runner.test_dataloader, runner.test_evaluator, False)
        dataset: Any = runner.test_dataloader.dataset
        known = self.calibrated_on if _has_calibrated_bias(runner.model) else None
        if known is not None and known == image_set(dataset):
            runner.logger.warning(
                f"The seen-class bias was calibrated on these {len(dataset)} images, which makes "
                "their hIoU a little too high: report that of other images, or say so."
            )

    def before_val_iter(self, runner: Runner, batch_idx: int, data_batch: Any = None) -> None:
        """Check that the images of a batch have one size: evaluation pads none of them."""
        images = (data_batch or {}).get("inputs", ())
        sizes = {tuple(image.shape[1:]) for image in images if isinstance(image, Tensor)}
        if len(sizes) > 1:
            raise UserError(
                f"a batch has images of different sizes, {sorted(sizes)}, which evaluation cannot "
                "stack: set val_dataloader.batch_size=1 and test_dataloader.batch_size=1"
            )

    before_test_iter = before_val_iter

    def _check_evaluation(
        self, runner: Runner, dataloader: Any, evaluator: Any, validates: bool
    ) -> None:
        split, dataset = class_split(runner.model), dataloader.dataset
        if split is None:
            return
        _check_classes(runner.model, dataset, f"the {'validation' if validates else 'test'} data")
        meta = getattr(dataset, "metainfo", {})
        if meta.get("hide_as") is not None:
            raise UserError(
                "the labels of unseen classes are hidden in data for evaluation: set test_mode="
                "True in the dataset that the ZeroShotDataset wraps"
            )
        # A model that trains with all labels reports both means on purpose.
        trained = frozenset() if _uses_all_labels(runner.model) else self.trained
        if not validates and split.unseen and trained.issuperset(split.unseen_names):
            raise UserError(
                f"the model was trained with labels of {', '.join(split.unseen_names)}, which are "
                "all the classes that this config calls unseen. Test it with the split it was "
                "trained with, or remove these classes from `unseen`."
            )
        calibrated = _has_calibrated_bias(runner.model)
        evaluator.dataset_meta = {**meta, "trained": sorted(trained), "calibrated": calibrated}


def image_set(dataset: Any) -> str:
    """A digest of a dataset's images: of the last three parts of their paths, in any order."""
    names = sorted("/".join(path.parts[-3:]) for path in _images(dataset))
    return sha256("\n".join(names).encode()).hexdigest()


def _images(dataset: Any) -> list[Path]:
    return [Path(dataset.get_data_info(index)["img_path"]) for index in range(len(dataset))]


def _has_calibrated_bias(model: Any) -> bool:
    head = getattr(segmentor(model), "decode_head", None)
    return getattr(head, "bias_is_calibrated", False)


def _uses_all_labels(model: Any) -> bool:
    """Whether the model trains on the labels of all classes ("supervised")."""
    return neck(model).train_classes == "all"


def _check_classes(model: Any, dataset: Any, data: str) -> None:
    """Check that a dataset has the model's class split."""
    split, metainfo = class_split(model), getattr(dataset, "metainfo", {})
    names = metainfo.get("classes")
    if split is None or names is None:
        return
    unseen = metainfo.get("unseen")
    if unseen is None:  # a dataset that hides nothing: only the names can differ
        unseen = split.unseen if len(names) == split.num_classes else ()
    other = ClassSplit(tuple(names), tuple(unseen), metainfo.get("background"))
    split.check_same(other, "the model", data)
    num_classes = getattr(segmentor(model).decode_head, "num_classes", split.num_classes)
    if num_classes != split.num_classes:
        raise UserError(
            f"model.decode_head.num_classes is {num_classes}, but the class split has "
            f"{split.num_classes} classes: set it to {split.num_classes}"
        )


def _check_setting(runner: Runner) -> None:
    """Check that the classes that train fit what the training data hides."""
    metainfo = getattr(runner.train_dataloader.dataset, "metainfo", {})
    if not metainfo.get("unseen"):
        return
    if getattr(runner.train_dataloader.dataset, "test_mode", False):
        raise UserError(
            "the training data has test_mode=True, so the labels of unseen classes are not hidden: "
            "remove it from the dataset that the ZeroShotDataset of train_dataloader wraps"
        )
    unlabeled = unlabeled_label(len(metainfo["classes"]))
    setting = {None: "supervised", unlabeled: "transductive"}.get(metainfo["hide_as"], "inductive")
    self_trains = any(isinstance(hook, SelfTrainingHook) for hook in runner.hooks)
    check_setting(setting, neck(runner.model).train_classes, self_trains)


def _warn_of_settings(runner: Runner) -> None:
    """Warn of settings with which next to nothing is learned."""
    model, warn = segmentor(runner.model), runner.logger.warning
    if (
        getattr(model.neck.text, "num_prompts", None) == 1
        and getattr(model.decode_head, "score_transport", None) == "sinkhorn"
    ):
        warn(
            "The model has one prompt per class, so its plan is the same for every image, and "
            "training tends to find no class at all. Use several prompts, or ZegCLIPHead."
        )
    optimizer: Any = getattr(runner.optim_wrapper, "optimizer", None)
    if type(optimizer).__name__ == "SGD" and optimizer.defaults["lr"] > MAX_SGD_LR:
        warn(  # configs of other models bring it along
            f"Prompts, neck and head learn next to nothing with SGD at a learning rate of "
            f"{optimizer.defaults['lr']:g}: use AdamW at 2e-5, as in configs/_base_/schedules."
        )
    schedules = runner.param_schedulers
    for schedule in schedules if isinstance(schedules, list) else ():
        if isinstance(schedule, WarmupPolyLR) and schedule.warmup_iters >= schedule.end:
            warn(
                f"The learning rate warms up for {schedule.warmup_iters} iterations "
                f"(param_scheduler.warmup_iters), but training ends after {schedule.end}, so it "
                "never reaches its value: set warmup_iters to a tenth of the run or so."
            )


def _check_output(runner: Runner) -> None:
    """Check that no two images would share the file of their label map."""
    if not any(getattr(metric, "output_dir", None) for metric in runner.test_evaluator.metrics):
        return
    paths: dict[str, Path] = {}
    for path in _images(runner.test_dataloader.dataset):
        other = paths.setdefault(path.stem, path)
        if other != path:
            raise UserError(
                f"the label maps of {other} and {path} would both be named {path.stem}.png, which "
                "is the image's name without its folder. Leave out --out (output_dir), test one "
                "folder at a time, or use tools/segment.py, which keeps the folders."
            )


@HOOKS.register_module()
class FiniteLossHook(Hook):
    """Stops training with an error when the loss or the weights become NaN or infinite.

    Otherwise training would continue and overwrite good checkpoints with useless ones. It checks
    only the total loss, which mmengine copies from the GPU in every iteration anyway, and the
    weights before they are saved.

    With a loss scale, a step may overflow, after which the scale is reduced. Training therefore
    stops only after several such steps in a row.

    Args:
        overflows: Number of successive NaN or infinite losses to tolerate with a loss scale.

    Raises:
        UserError: If the total loss or the weights to be saved hold NaN or infinity.
    """

    def __init__(self, overflows: int = 20) -> None:
        self.overflows = overflows
        self._in_a_row = 0

    def after_train_iter(
        self, runner: Runner, batch_idx: int, data_batch: Any = None, outputs: Any = None
    ) -> None:
        if not outputs or "loss" not in outputs or torch.as_tensor(outputs["loss"]).isfinite():
            self._in_a_row = 0
            return
        self._in_a_row += 1
        scaled = isinstance(runner.optim_wrapper, AmpOptimWrapper)
        if not scaled or self._in_a_row > self.overflows:
            numbers = {name: torch.as_tensor(value).item() for name, value in outputs.items()}
            values = ", ".join(f"{name} {number:.3g}" for name, number in numbers.items())
            raise UserError(
                f"training was stopped after iteration {runner.iter + 1}, because its loss is NaN "
                f"or infinite: {values}. {ADVICE}"
            )

    def before_save_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        for name, value in checkpoint["state_dict"].items():
            # The causal mask of a text tower is infinite on purpose.
            checked = isinstance(value, Tensor) and not name.endswith("attn_mask")
            if checked and not value.isfinite().all():
                raise UserError(
                    f"training was stopped at iteration {checkpoint['meta']['iter']} and nothing "
                    f"was saved, because the weights {name} hold NaN or infinity. {ADVICE}"
                )
