"""A model and its data must speak of the same classes."""

from __future__ import annotations

from typing import Any

from mmengine.hooks import Hook
from mmengine.model import is_model_wrapper
from mmengine.runner import Runner
from mmseg.registry import HOOKS

from mmseg_otseg.structures import ClassSplit


@HOOKS.register_module()
class VocabularyCheckHook(Hook):
    """Refuses to start when the model's class names or seen classes are not the data set's.

    Text prompts of another data set would train and test without any other sign than poor numbers.
    Models without text prompts, and data sets without class names, are passed over.

    Raises:
        ValueError: When names differ, or training data shows masks of other classes than the model
            takes for seen.
    """

    def before_train(self, runner: Runner) -> None:
        self._check(runner, runner.train_dataloader, training=True)

    def before_val(self, runner: Runner) -> None:
        self._check(runner, runner.val_dataloader, training=False)

    def before_test(self, runner: Runner) -> None:
        self._check(runner, runner.test_dataloader, training=False)

    def _check(self, runner: Runner, dataloader: Any, training: bool) -> None:
        model = runner.model.module if is_model_wrapper(runner.model) else runner.model
        model = getattr(model, "module", model)  # test-time augmentation wraps the segmentor too
        split = getattr(getattr(getattr(model, "neck", None), "text", None), "split", None)
        metainfo = getattr(dataloader.dataset, "metainfo", {})
        names = metainfo.get("classes")
        if not isinstance(split, ClassSplit) or names is None:
            return
        if tuple(names) != split.classes:
            raise ValueError(
                f"the model's text prompts are for {_some(split.classes)}, the data set has "
                f"{_some(names)}. Give `model.neck.text.split` and the data set the same `split`."
            )
        seen = metainfo.get("seen")
        if training and seen is not None and tuple(seen) != split.seen:
            raise ValueError(
                f"the model takes the classes {list(split.seen)} for seen, the training data "
                f"{list(seen)}. Give `model.neck.text.split` and the data set the same `split`."
            )


def _some(names: Any) -> str:
    shown = ", ".join(list(names)[:4])
    return f"{len(names)} classes ({shown}{', ...' if len(names) > 4 else ''})"
