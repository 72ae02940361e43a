"""What a run is refused for whose config was wired by hand."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import torch
from mmengine.config import Config
from mmengine.runner import Runner
from mmseg.registry import MODELS
from PIL import Image

from mmseg_otseg.engine.checkpoint import trained_classes
from tests.helpers.otseg_run import otseg_config
from tests.helpers.run_tools import forget_runs
from tests.helpers.tiny_run import CLASSES, write_images


@pytest.fixture
def cfg(tmp_path: Path) -> Config:
    """A run over mmseg's ``EncoderDecoder``, which names the hook."""
    write_images(tmp_path)
    return otseg_config(tmp_path)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"train_dataloader.dataset.setting": "transductive"}, "transductive.*SelfTrainingHook"),
        ({"model.neck.train_classes": "all"}, "train_classes='all'.* 'seen'"),
        ({"val_dataloader.dataset.dataset.test_mode": False}, "hidden.*test_mode=True"),
        ({"model.decode_head.num_classes": 4}, "num_classes.* 4.* 3"),
        ({"train_dataloader.dataset.split.unseen": ["left"]}, "training data.*right.*left"),
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


def with_checkpoint(cfg: Config, meta: dict) -> Config:
    """The config as it starts from a checkpoint with this ``meta``."""
    forget_runs()
    cfg = Config(cfg.to_dict())
    cfg.load_from = str(Path(cfg.work_dir).with_suffix(".pth"))
    torch.manual_seed(0)
    torch.save({"state_dict": MODELS.build(cfg.model).state_dict(), "meta": meta}, cfg.load_from)
    return cfg


def test_a_trained_class_is_not_reported_as_unseen(cfg: Config, capsys: Any) -> None:
    def tested(meta: dict, *unseen: str, train_classes: str = "seen") -> dict[str, float]:
        other = with_checkpoint(cfg, meta)
        other.model.neck.train_classes = train_classes
        split = dict(classes=CLASSES, unseen=list(unseen))
        for owner in (other.model.neck.text, other.test_dataloader.dataset):
            owner.split = split
        return Runner.from_cfg(other).test()

    meta = {"trained_classes": ["left", "middle"]}
    with pytest.raises(ValueError, match=r"trained .*middle"):
        tested(meta, "middle")
    apart = tested(meta, "middle", "right")
    assert re.search("trained .*middle", capsys.readouterr().out)
    whole = tested({}, "middle", "right")
    assert apart["mIoU"] == whole["mIoU"] and apart["mIoU_S"] == whole["mIoU_S"]
    # The config says that all labels were used: then both means are what is asked for.
    assert tested(meta, "middle", train_classes="all")["mIoU_U"] >= 0


def test_training_remembers_what_was_trained_before(cfg: Config) -> None:
    Runner.from_cfg(with_checkpoint(cfg, {"trained_classes": ["sky"]})).train()
    saved = torch.load(Path(cfg.work_dir) / "iter_4.pth", weights_only=True)
    assert saved["meta"]["trained_classes"] == ["left", "middle", "sky"]


def test_settings_that_learn_nothing_are_named(cfg: Config, capsys: Any) -> None:
    cfg.model.neck.text.templates = ["a {}."]
    cfg.optim_wrapper.optimizer = dict(type="SGD", lr=0.01, weight_decay=0.0)
    Runner.from_cfg(cfg).train()
    printed = capsys.readouterr().out
    assert "one prompt per class" in printed and re.search("SGD.*AdamW", printed)


def test_a_warm_up_that_outlasts_the_run_is_named(cfg: Config, capsys: Any) -> None:
    cfg.param_scheduler.warmup_iters = 1500
    Runner.from_cfg(cfg).train()
    assert re.search("warms up for 1500 iterations.*ends after 4", capsys.readouterr().out)


def test_images_of_several_sizes_in_a_batch_are_refused(cfg: Config, tmp_path: Path) -> None:
    for kind in ("images", "labels"):
        file = tmp_path / kind / "val" / "0.png"
        Image.open(file).resize((48, 32), Image.Resampling.NEAREST).save(file)
    cfg.val_dataloader.batch_size = cfg.test_dataloader.batch_size = 2
    with pytest.raises(ValueError, match=r"32 x 32, 32 x 48.*val_dataloader\.batch_size=1"):
        Runner.from_cfg(cfg).train()
    forget_runs()
    with pytest.raises(ValueError, match=r"test_dataloader\.batch_size=1"):
        Runner.from_cfg(cfg).test()


def test_what_a_checkpoint_was_trained_on() -> None:
    data = {"classes": ("a", "b", "c"), "seen": [0, 2], "unseen": [1], "hide_as": 255}
    assert trained_classes({"dataset_meta": data}) == {"a", "c"}  # as version 0.1 wrote it
    assert trained_classes({"dataset_meta": {**data, "hide_as": None}}) == {"a", "b", "c"}
    assert trained_classes({"dataset_meta": data, "trained_classes": ["z"]}) == {"z"}
    for unknown in (None, {}, {"dataset_meta": {"classes": ("a", "b")}}):
        assert trained_classes(unknown) == frozenset()
