from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from mmseg.registry import HOOKS

from mmseg_otseg.structures import ClassSplit

SPLIT = ClassSplit(("cat", "dog", "sofa"), (1,))


def runner(split: ClassSplit | None, **metainfo: Any) -> SimpleNamespace:
    model = SimpleNamespace(
        neck=SimpleNamespace(text=SimpleNamespace(split=split)),
        decode_head=SimpleNamespace(num_classes=3),
    )
    loader = SimpleNamespace(dataset=SimpleNamespace(metainfo=metainfo))
    return SimpleNamespace(
        model=model,
        train_dataloader=loader,
        val_dataloader=loader,
        test_dataloader=loader,
        val_loop=None,
    )


@pytest.fixture
def hook() -> Any:
    return HOOKS.build(dict(type="RunCheckHook"))


def test_the_same_classes_pass(hook: Any) -> None:
    for stage in (hook.before_train, hook.before_val, hook.before_test):
        stage(runner(SPLIT, classes=list(SPLIT.classes), seen=[0, 2], unseen=[1]))
        stage(runner(SPLIT, classes=list(SPLIT.classes)))  # a data set that hides nothing


@pytest.mark.parametrize("stage", ["before_train", "before_val", "before_test"])
def test_other_names_are_refused(stage: str, hook: Any) -> None:
    with pytest.raises(
        ValueError, match=r"the model and the \w+ data.*3 in the first, 2 in the second"
    ):
        getattr(hook, stage)(runner(SPLIT, classes=["cat", "dog"]))


@pytest.mark.parametrize("stage", ["before_train", "before_val", "before_test"])
def test_other_unseen_classes_are_refused(stage: str, hook: Any) -> None:
    other = runner(SPLIT, classes=SPLIT.classes, seen=[0, 1], unseen=[2])
    with pytest.raises(ValueError, match="unseen are dog in the first, sofa in the second"):
        getattr(hook, stage)(other)


def test_another_number_of_classes_in_the_head_is_refused(hook: Any) -> None:
    other = runner(SPLIT, classes=SPLIT.classes)
    other.model.decode_head.num_classes = 21
    with pytest.raises(ValueError, match=r"num_classes is 21.*set it to 3"):
        hook.before_train(other)


def test_models_without_text_prompts_pass(hook: Any) -> None:
    hook.before_train(runner(None, classes=["cat"]))
    without = runner(SPLIT, classes=["cat"])
    without.model = SimpleNamespace()
    hook.before_train(without)
