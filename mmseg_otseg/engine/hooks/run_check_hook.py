"""A model, its data and the settings of a run must fit each other."""

from __future__ import annotations

from typing import Any

from mmengine.config import Config
from mmengine.hooks import Hook
from mmengine.runner import Runner
from mmseg.registry import HOOKS

from mmseg_otseg.engine.parts import class_split, segmentor
from mmseg_otseg.structures import ClassSplit


@HOOKS.register_module(name=["RunCheckHook", "VocabularyCheckHook"])
class RunCheckHook(Hook):
    """Refuses to start a run whose settings contradict each other.

    Text prompts of another data set, or a class that training shows and the metric calls unseen,
    would train and test without any other sign than wrong numbers. Models without text prompts are
    passed over. Every run of mmseg's loops has this hook, see :mod:`mmseg_otseg.engine.loops`.

    Raises:
        ValueError: When model and data do not mean the same classes, or the config has a class
            split that nothing reads.
    """

    def before_run(self, runner: Runner) -> None:
        split = class_split(runner.model)
        if split is not None:
            check_no_idle_split(runner.cfg, split)

    def before_train(self, runner: Runner) -> None:
        self._check(runner, runner.train_dataloader, "the training data")
        if runner.val_loop is not None:
            self._check(runner, runner.val_dataloader, "the validation data")

    def before_val(self, runner: Runner) -> None:
        self._check(runner, runner.val_dataloader, "the validation data")

    def before_test(self, runner: Runner) -> None:
        self._check(runner, runner.test_dataloader, "the test data")

    def _check(self, runner: Runner, dataloader: Any, data: str) -> None:
        split = class_split(runner.model)
        metainfo = getattr(dataloader.dataset, "metainfo", {})
        names = metainfo.get("classes")
        if split is None or names is None:
            return
        unseen = metainfo.get("unseen")
        if unseen is None:  # a data set that hides nothing: only the names can differ
            unseen = split.unseen if len(names) == split.num_classes else ()
        ClassSplit.agreed({"the model": split, data: ClassSplit(tuple(names), tuple(unseen))})
        num_classes = getattr(segmentor(runner.model).decode_head, "num_classes", None)
        if num_classes is not None and num_classes != split.num_classes:
            raise ValueError(
                f"model.decode_head.num_classes is {num_classes}, but the class split has "
                f"{split.num_classes} classes: set it to {split.num_classes}"
            )


def check_no_idle_split(cfg: Config, split: ClassSplit) -> None:
    """Refuse a top-level ``split``, ``classes`` or ``unseen`` beside ``model.split``.

    Args:
        cfg: The whole config.
        split: The model's class split.

    Raises:
        ValueError: If the config has both, and they differ: the first would be without effect. For
            ``classes`` and ``unseen`` also if they do not.
    """
    idle, model = cfg.get("split"), cfg.get("model") or {}
    model = model.get("module", model)  # test-time augmentation wraps the segmentor
    for key in ("classes", "unseen", "seen"):
        if key in cfg and model.get("split") is not None:
            raise ValueError(
                f"the setting {key}={cfg[key]} at the top of the config has no effect: write "
                f"model=dict(split=dict({key}=...)), or --cfg-options model.split.{key}=..."
            )
    if idle is None or model.get("split") is None:
        return
    try:
        same = ClassSplit.build(idle) == split
    except (TypeError, ValueError):
        same = False
    if not same:
        raise ValueError(
            f"the setting split={idle} has no effect: write model=dict(split=...), or "
            "--cfg-options model.split..., which reaches the model, the data and the metric"
        )
