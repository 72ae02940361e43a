from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from mmseg.registry import HOOKS

from mmseg_otseg.structures import ClassSplit

SPLIT = ClassSplit(("cat", "dog", "sofa"), (1,))


def runner(split: ClassSplit | None, **metainfo: Any) -> SimpleNamespace:
    model = SimpleNamespace(neck=SimpleNamespace(text=SimpleNamespace(split=split)))
    loader = SimpleNamespace(dataset=SimpleNamespace(metainfo=metainfo))
    return SimpleNamespace(
        model=model, train_dataloader=loader, val_dataloader=loader, test_dataloader=loader
    )


@pytest.fixture
def hook() -> Any:
    return HOOKS.build(dict(type="VocabularyCheckHook"))


def test_the_same_classes_pass(hook: Any) -> None:
    for stage in (hook.before_train, hook.before_val, hook.before_test):
        stage(runner(SPLIT, classes=list(SPLIT.classes), seen=[0, 2]))


@pytest.mark.parametrize("stage", ["before_train", "before_val", "before_test"])
def test_other_names_are_refused(stage: str, hook: Any) -> None:
    with pytest.raises(ValueError, match=r"for 3 classes \(cat, dog, sofa\), the data set has 2"):
        getattr(hook, stage)(runner(SPLIT, classes=["cat", "dog"]))


def test_other_seen_classes_are_refused_in_training_only(hook: Any) -> None:
    other = runner(SPLIT, classes=SPLIT.classes, seen=[0, 1])
    with pytest.raises(ValueError, match="takes the classes \\[0, 2\\] for seen"):
        hook.before_train(other)
    hook.before_test(other)


def test_models_without_text_prompts_pass(hook: Any) -> None:
    hook.before_train(runner(None, classes=["cat"]))
    without = runner(SPLIT, classes=["cat"])
    without.model = SimpleNamespace()
    hook.before_train(without)
