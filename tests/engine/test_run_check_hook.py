"""What a run is refused for whose config was wired by hand."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import torch
from mmengine.config import Config
from mmengine.runner import Runner

from mmseg_otseg.engine.hooks.checks import trained_classes
from tests.helpers.otseg_run import otseg_config
from tests.helpers.tiny_run import CLASSES, write_images


@pytest.fixture
def cfg(tmp_path: Path) -> Config:
    """A run over mmseg's ``EncoderDecoder``, which names the hook."""
    write_images(tmp_path)
    cfg = otseg_config(tmp_path)
    cfg.experiment_name = tmp_path.name
    return cfg


def with_split(cfg: Config, split: dict) -> Config:
    cfg.model.neck.text.split = split
    for part in ("train", "val", "test"):
        cfg[f"{part}_dataloader"].dataset.split = split
    return cfg


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"train_dataloader.dataset.setting": "transductive"}, "transductive.*SelfTrainingHook"),
        ({"model.neck.train_classes": "all"}, "train_classes='all'.* 'seen'"),
        ({"train_dataloader.dataset.setting": "supervised"}, "train_classes='seen'.* 'all'"),
        ({"val_dataloader.dataset.dataset.test_mode": False}, "hidden.*test_mode=True"),
        ({"train_dataloader.dataset.dataset.test_mode": True}, "training .*test_mode=True"),
        ({"model.decode_head.num_classes": 4}, "num_classes.* 4.* 3"),
        ({"train_dataloader.dataset.split.unseen": ["left"]}, "training data.*right.*left"),
        ({"val_dataloader.dataset.split.unseen": ["left"]}, "validation data.*right.*left"),
    ],
)
def test_parts_that_do_not_fit_are_refused_at_the_start(
    cfg: Config, changes: dict[str, Any], message: str
) -> None:
    cfg.merge_from_dict(changes)
    runner = Runner.from_cfg(cfg)
    with pytest.raises(ValueError, match=message):
        runner.train()
    assert runner.iter == 0


def test_other_names_than_those_of_the_data_are_refused(cfg: Config) -> None:
    cfg.test_dataloader.dataset = cfg.test_dataloader.dataset.dataset
    cfg.test_dataloader.dataset.metainfo.classes = ("left", "right", "middle")
    cfg.test_evaluator = dict(type="IoUMetric")
    with pytest.raises(ValueError, match=r"test data.*index 1.*middle.*right"):
        Runner.from_cfg(cfg).test()


def test_supervised_training_records_all_classes(cfg: Config) -> None:
    cfg.train_dataloader.dataset.setting = "supervised"
    cfg.model.neck.train_classes = "all"
    runner = Runner.from_cfg(cfg)
    runner.train()
    assert "val/mIoU_U" in runner.message_hub.log_scalars
    saved = torch.load(Path(cfg.work_dir) / "iter_4.pth", weights_only=False)
    assert saved["meta"]["trained_classes"] == sorted(CLASSES)


def metrics_of(cfg: Config, meta: dict, unseen: list[str], name: str) -> dict[str, float]:
    """Metrics of a checkpoint with this ``meta``."""
    checkpoint = Path(cfg.work_dir).with_suffix(".pth")
    state = Runner.from_cfg(with_name(cfg, f"{name}_made")).model.state_dict()
    torch.save({"state_dict": state, "meta": meta}, checkpoint)
    cfg = with_split(with_name(cfg, name), dict(classes=CLASSES, unseen=unseen))
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
    cfg.model.neck.train_classes = "all"
    assert metrics_of(cfg, meta, ["middle"], "_supervised")["mIoU_U"] >= 0


def test_what_a_checkpoint_was_trained_on() -> None:
    data = {"classes": ("a", "b", "c"), "seen": [0, 2], "unseen": [1], "hide_as": 255}
    assert trained_classes({"dataset_meta": data}) == {"a", "c"}  # as version 0.1 wrote it
    assert trained_classes({"dataset_meta": {**data, "hide_as": None}}) == {"a", "b", "c"}
    assert trained_classes({"dataset_meta": data, "trained_classes": ["z"]}) == {"z"}
    for unknown in (None, {}, {"dataset_meta": {"classes": ("a", "b")}}):
        assert trained_classes(unknown) == frozenset()


def test_training_remembers_what_was_trained_before(cfg: Config) -> None:
    first = Runner.from_cfg(with_name(cfg, "_first"))
    torch.save(
        {"state_dict": first.model.state_dict(), "meta": {"trained_classes": ["sky"]}},
        Path(cfg.work_dir).with_suffix(".pth"),
    )
    cfg.load_from = str(Path(cfg.work_dir).with_suffix(".pth"))
    Runner.from_cfg(cfg).train()
    saved = torch.load(Path(cfg.work_dir) / "iter_4.pth", weights_only=False)
    assert saved["meta"]["trained_classes"] == ["left", "middle", "sky"]


def test_settings_that_learn_nothing_are_named(cfg: Config, capsys: Any) -> None:
    cfg.model.neck.text.templates = ["a {}."]
    cfg.optim_wrapper.optimizer = dict(type="SGD", lr=0.01, weight_decay=0.0)
    Runner.from_cfg(cfg).train()
    printed = capsys.readouterr().out
    assert "one prompt per class" in printed and re.search("SGD.*AdamW", printed)
