from __future__ import annotations

import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from mmengine.config import Config
from mmengine.runner import Runner
from mmseg.registry import HOOKS

from mmseg_otseg.engine.hooks import RunCheckHook, run_check_hook
from mmseg_otseg.engine.hooks.run_check_hook import trained_classes
from mmseg_otseg.structures import ClassSplit
from tests.helpers.otseg_run import otseg_config
from tests.helpers.tiny_run import CLASSES, write_images

SPLIT = ClassSplit(("cat", "dog", "sofa"), (1,))


def runner(split: ClassSplit | None, **metainfo: Any) -> SimpleNamespace:
    model = SimpleNamespace(
        neck=SimpleNamespace(text=SimpleNamespace(split=split), train_classes=None),
        decode_head=SimpleNamespace(num_classes=3),
    )
    loader = SimpleNamespace(dataset=SimpleNamespace(metainfo=metainfo))
    evaluator = SimpleNamespace(metrics=[])
    return SimpleNamespace(
        model=model,
        train_dataloader=loader,
        val_dataloader=loader,
        test_dataloader=loader,
        val_loop=None,
        hooks=[],
        cfg=Config(),
        val_evaluator=evaluator,
        test_evaluator=evaluator,
        _train_loop=None,
    )


@pytest.fixture
def hook() -> Any:
    return HOOKS.build(dict(type="RunCheckHook"))


def test_the_same_classes_pass(hook: Any) -> None:
    for stage in (hook.before_train, hook.before_val, hook.before_test):
        stage(runner(SPLIT, classes=list(SPLIT.classes), unseen=[1], hide_as=None))
        stage(runner(SPLIT, classes=list(SPLIT.classes)))  # a dataset that hides nothing


@pytest.mark.parametrize("stage", ["before_train", "before_val", "before_test"])
def test_other_names_are_refused(stage: str, hook: Any) -> None:
    with pytest.raises(ValueError, match=r"model .* data .* 3 .* 2 "):
        getattr(hook, stage)(runner(SPLIT, classes=["cat", "dog"]))


@pytest.mark.parametrize("stage", ["before_train", "before_val", "before_test"])
def test_other_unseen_classes_are_refused(stage: str, hook: Any) -> None:
    other = runner(SPLIT, classes=SPLIT.classes, seen=[0, 1], unseen=[2])
    with pytest.raises(ValueError, match=r"unseen.*dog.*sofa"):
        getattr(hook, stage)(other)


def test_another_number_of_classes_in_the_head_is_refused(hook: Any) -> None:
    other = runner(SPLIT, classes=SPLIT.classes)
    other.model.decode_head.num_classes = 21
    with pytest.raises(ValueError, match=r"num_classes.*21.*3"):
        hook.before_train(other)


def test_warns_of_a_single_prompt(hook: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []
    monkeypatch.setattr(run_check_hook, "print_log", lambda text, *_: said.append(text))
    for prompts, transport in ((6, "sinkhorn"), (1, "softmax"), (1, "sinkhorn")):
        assert not said
        run = runner(SPLIT, classes=SPLIT.classes)
        run.model.neck.text.num_prompts = prompts
        run.model.decode_head.score_transport = transport
        hook.before_train(run)
    assert "one prompt" in said[0]


def test_models_without_text_prompts_pass(hook: Any) -> None:
    hook.before_train(runner(None, classes=["cat"]))
    without = runner(SPLIT, classes=["cat"])
    without.model = SimpleNamespace()
    hook.before_train(without)


# Whole runs --------------------------------------------------------------------------------------

ALL_SEEN = dict(classes=CLASSES, unseen=[])


@pytest.fixture
def cfg(tmp_path: Path) -> Config:
    """A run over mmseg's own runtime: no hook of this project is in it."""
    write_images(tmp_path)
    cfg = otseg_config(tmp_path)
    cfg.custom_hooks = []
    cfg.experiment_name = tmp_path.name
    return cfg


def with_split_everywhere(cfg: Config, split: dict) -> Config:
    cfg.model.neck.text.split = split
    for part in ("train", "val", "test"):
        cfg[f"{part}_dataloader"].dataset.split = split
    return cfg


def set_by_path(cfg: Config, changes: dict[str, Any]) -> None:
    for path, value in changes.items():
        *parents, last = path.split(".")
        place: Any = cfg
        for name in parents:
            place = place[name]
        place[last] = value


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"train_dataloader.dataset.setting": "transductive"},
            "transductive.*SelfTrainingHook",
        ),
        (
            {"val_dataloader.dataset.dataset.test_mode": False},
            "validation .*test_mode=True.*val_dataloader",
        ),
        (
            {"train_dataloader.dataset.dataset.test_mode": True},
            "training .*test_mode=True.*train_dataloader",
        ),
        ({"val_evaluator": dict(type="IoUMetric")}, "hIoU.*ZeroShotIoUMetric"),
        ({"model.decode_head.num_classes": 4}, "num_classes.* 4.* 3"),
    ],
)
def test_settings_that_contradict_each_other_are_refused_at_the_start(
    cfg: Config, changes: dict[str, Any], message: str
) -> None:
    set_by_path(cfg, changes)
    runner = Runner.from_cfg(cfg)
    with pytest.raises(ValueError, match=message):
        runner.train()
    assert runner.iter == 0


def test_no_unseen_class_and_the_best_by_hiou(cfg: Config) -> None:
    with_split_everywhere(cfg, ALL_SEEN)
    with pytest.raises(ValueError, match=r"hIoU.*save_best=mIoU"):
        Runner.from_cfg(cfg).train()
    cfg.default_hooks.checkpoint.save_best = "mIoU"
    cfg.experiment_name += "_miou"
    runner = Runner.from_cfg(cfg)
    runner.train()
    assert "val/mIoU_S" in runner.message_hub.log_scalars


def test_a_metric_without_a_split_is_refused_at_the_start(cfg: Config) -> None:
    cfg.val_dataloader.dataset = cfg.val_dataloader.dataset.dataset
    with pytest.raises(ValueError, match=r"ZeroShotIoUMetric.*ZeroShotDataset"):
        Runner.from_cfg(cfg).train()


def test_supervised_is_one_setting(cfg: Config) -> None:
    cfg.train_dataloader.dataset.setting = "supervised"
    runner = Runner.from_cfg(cfg)
    runner.train()
    assert runner.model.neck.train_classes == "all"
    assert "val/mIoU_U" in runner.message_hub.log_scalars  # asked for, and named by the setting
    saved = torch.load(Path(cfg.work_dir) / "iter_4.pth", weights_only=False)
    assert saved["meta"]["trained_classes"] == sorted(CLASSES)


def metrics_of(cfg: Config, meta: dict, unseen: list[str], name: str) -> dict[str, float]:
    """Metrics of a checkpoint with this ``meta``."""
    checkpoint = Path(cfg.work_dir).with_suffix(".pth")
    state = Runner.from_cfg(with_name(cfg, f"{name}_made")).model.state_dict()
    torch.save({"state_dict": state, "meta": meta}, checkpoint)
    cfg = with_split_everywhere(with_name(cfg, name), dict(classes=CLASSES, unseen=unseen))
    cfg.load_from = str(checkpoint)
    return Runner.from_cfg(cfg).test()


def with_name(cfg: Config, name: str) -> Config:
    cfg = Config(cfg.to_dict())
    cfg.experiment_name += name
    return cfg


def test_a_trained_class_is_not_reported_as_unseen(cfg: Config, capsys: Any) -> None:
    meta = {"trained_classes": ["left", "middle"]}
    with pytest.raises(ValueError, match=r"trained .*middle"):
        metrics_of(cfg, meta, ["middle"], "_all")
    apart = metrics_of(cfg, meta, ["middle", "right"], "_apart")
    assert re.search("trained .*middle", capsys.readouterr().out)
    whole = metrics_of(cfg, {}, ["middle", "right"], "_unknown")
    assert apart["mIoU"] == whole["mIoU"] and apart["mIoU_S"] == whole["mIoU_S"]
    # The config says that all labels were used: then both means are what is asked for.
    cfg.train_dataloader.dataset.setting = "supervised"
    assert metrics_of(cfg, meta, ["middle"], "_supervised")["mIoU_U"] >= 0


def test_what_a_checkpoint_was_trained_on() -> None:
    data = {"classes": ("a", "b", "c"), "seen": [0, 2], "unseen": [1], "hide_as": 255}
    assert trained_classes({"dataset_meta": data}) == {"a", "c"}  # as version 0.1 wrote it
    assert trained_classes({"dataset_meta": {**data, "hide_as": None}}) == {"a", "b", "c"}
    assert trained_classes({"dataset_meta": data, "trained_classes": ["z"]}) == {"z"}
    for unknown in (None, {}, {"dataset_meta": {"classes": ("a", "b")}}):
        assert trained_classes(unknown) == frozenset()


def test_what_a_checkpoint_was_trained_on_before_is_kept() -> None:
    hook = RunCheckHook()
    other = runner(SPLIT, classes=SPLIT.classes)
    hook.after_load_checkpoint(other, {"meta": {"trained_classes": ["sky"]}})
    saved: dict[str, Any] = {"meta": {}}
    hook.before_save_checkpoint(other, saved)
    assert saved["meta"]["trained_classes"] == ["cat", "sky", "sofa"]
