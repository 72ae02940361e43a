"""What stops a run, or is said of it, whose config was wired by hand."""

from __future__ import annotations

import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from mmengine.config import Config
from mmengine.optim import AmpOptimWrapper
from mmengine.runner import Runner
from mmseg.registry import MODELS
from PIL import Image

from mmseg_otseg.engine.hooks import FiniteLossHook
from mmseg_otseg.errors import UserError
from tests.helpers.run_tools import forget_runs
from tests.helpers.tiny_run import CLASSES, tiny_config, write_images
from tests.helpers.toy_run import toy_runner


@pytest.fixture
def cfg(tmp_path: Path) -> Config:
    """A run over mmseg's ``EncoderDecoder``, which names the hook."""
    write_images(tmp_path)
    return tiny_config(tmp_path)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"train_dataloader.dataset.setting": "transductive"}, "transductive.*SelfTrainingHook"),
        ({"train_dataloader.dataset.dataset.test_mode": True}, "train.*test_mode=True"),
        ({"model.neck.train_classes": "all"}, "train_classes='all'.* 'seen'"),
        ({"val_dataloader.dataset.dataset.test_mode": False}, "hidden.*test_mode=True"),
        ({"model.decode_head.num_classes": 4}, "num_classes.* 4.* 3"),
        ({"model.decode_head.embed_dim": 8}, "embed_dim=8.*32"),
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


def test_what_is_remembered_and_what_learns_nothing(cfg: Config, capsys: Any) -> None:
    cfg.model.neck.text.templates = ["a {}."]
    cfg.optim_wrapper.optimizer = dict(type="SGD", lr=0.01, weight_decay=0.0)
    cfg.param_scheduler.warmup_iters = 1500
    Runner.from_cfg(with_checkpoint(cfg, {"trained_classes": ["sky"]})).train()
    saved = torch.load(Path(cfg.work_dir) / "iter_4.pth", weights_only=True)
    assert saved["meta"]["trained_classes"] == ["left", "middle", "sky"]
    printed = capsys.readouterr().out
    for said in ("one prompt per class", "SGD.*AdamW", "warms up for 1500 iterations.*after 4"):
        assert re.search(said, printed)


def test_images_of_several_sizes_in_a_batch_are_refused(cfg: Config, tmp_path: Path) -> None:
    for file in tmp_path.glob("*/val/val_0.*"):
        Image.open(file).resize((48, 32), Image.Resampling.NEAREST).save(file)
    cfg.val_dataloader.batch_size = cfg.test_dataloader.batch_size = 2
    runner = Runner.from_cfg(cfg)
    for evaluate in (runner.val, runner.test):
        with pytest.raises(UserError, match=r"\(64, 64\), \(64, 96\).*batch_size=1"):
            evaluate()


@pytest.mark.filterwarnings("error:Converting a tensor")
@pytest.mark.parametrize("what", ["loss", "weights"])
def test_a_run_whose_loss_is_no_number_stops(what: str, tmp_path: Path) -> None:
    runner = toy_runner(tmp_path, [1, 2, 3, 4])
    step = runner.model.train_step

    def train_step(*args: Any, **options: Any) -> Any:
        outputs = step(*args, **options)
        if runner.iter == 2 and what == "loss":
            outputs["loss"] = outputs["loss"] * float("nan")
        elif runner.iter == 2:
            runner.model.linear.weight.data.fill_(float("inf"))
        return outputs

    runner.model.train_step = train_step
    with pytest.raises(ValueError, match=rf" 3.*{what}.*optimizer\.lr.*--resume"):
        runner.train()
    assert (tmp_path / "iter_2.pth").is_file() and not list(tmp_path.glob("*3*.pth*"))
    assert (tmp_path / "last_checkpoint").read_text().endswith("iter_2.pth")


def test_a_loss_scale_may_overflow_for_a_while() -> None:
    hook = FiniteLossHook(overflows=2)
    wrapper = AmpOptimWrapper.__new__(AmpOptimWrapper)
    runner: Any = SimpleNamespace(optim_wrapper=wrapper, iter=0, work_dir="nowhere")
    good, bad = dict(loss=torch.tensor(1.0)), dict(loss=torch.tensor(float("inf")))
    for outputs in (bad, bad, good, bad, bad):
        hook.after_train_iter(runner, 0, outputs=outputs)
    with pytest.raises(ValueError, match="infinite"):
        hook.after_train_iter(runner, 0, outputs=bad)
