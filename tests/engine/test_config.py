"""What a config means: ``resolve`` as the pure function it is."""

from __future__ import annotations

from functools import reduce
from operator import getitem
from pathlib import Path
from typing import Any

import pytest
from mmengine.config import Config
from mmengine.runner import IterBasedTrainLoop, Runner

from mmseg_otseg.datasets import ZeroShotDataset
from mmseg_otseg.engine import resolve
from tests.helpers.paths import ROOT
from tests.helpers.small_configs import small

CONFIGS = ROOT / "configs"
RUNNABLE = sorted(
    str(path.relative_to(CONFIGS))
    for path in CONFIGS.glob("*/*.py")
    if path.parent.name != "_base_"
)


def changed(config: str, changes: dict[str, Any]) -> Config:
    """A config of the project in which values are replaced, by their dotted names."""
    cfg: Any = Config.fromfile(CONFIGS / config)
    for name, value in changes.items():
        *parents, last = name.split(".")
        reduce(getitem, parents, cfg)[last] = value
    return cfg


@pytest.mark.parametrize("config", RUNNABLE)
def test_resolving_again_changes_nothing(config: str, tmp_path: Path) -> None:
    cfg = Config.fromfile(CONFIGS / config)
    before = cfg.to_dict()
    once = resolve(cfg)
    assert cfg.to_dict() == before
    assert resolve(once).to_dict() == once.to_dict()
    once.dump(tmp_path / "resolved.py")
    again = resolve(Config.fromfile(tmp_path / "resolved.py"))
    assert again.pretty_text == once.pretty_text


def test_what_is_filled_in() -> None:
    cfg = resolve(changed("zegot/voc_512.py", {"model.split.unseen": ["cow", "motorbike"]}))
    model, split = cfg.model, cfg.model.split
    assert split.unseen == ["cow", "motorbike"] and len(split.classes) == 20
    assert model.backbone.clip == model.neck.clip == model.neck.text.clip == model.clip
    assert model.neck.split == model.neck.text.split == split
    assert (model.neck.adapters, model.neck.train_classes) == (3, "seen")
    head = model.decode_head
    assert (head.embed_dim, head.num_classes, head.num_levels) == (512, 20, 3)
    for part in ("train", "val", "test"):
        assert cfg[f"{part}_dataloader"].dataset.split == split
    assert all("test_mode" not in leaf for leaf in cfg.train_dataloader.dataset.dataset.datasets)
    assert cfg.val_dataloader.dataset.dataset.test_mode
    assert resolve(changed("otseg/voc_512.py", {})).model.neck.adapters == 0
    supervised = resolve(changed("otseg/voc_512_supervised.py", {}))
    assert supervised.model.neck.train_classes == "all"


def test_a_loader_needs_no_workers() -> None:
    cfg = resolve(changed("otseg/voc_512.py", {"train_dataloader.num_workers": 0}))
    assert not cfg.train_dataloader.get("persistent_workers")
    assert cfg.val_dataloader.persistent_workers


def test_folders_are_named_once() -> None:
    cfg = changed("own_data/otseg_512.py", {"data_root": "streets", "background": 0})
    mine = dict(type="FolderDataset", data_root="mine", background=None, subset="train")
    cfg.train_dataloader.dataset.dataset = dict(type="ConcatDataset", datasets=[mine, {**mine}])
    cfg.train_dataloader.dataset.dataset.datasets[1].pop("data_root")
    resolved = resolve(cfg)
    first, second = resolved.train_dataloader.dataset.dataset.datasets
    assert (first.data_root, first.background) == ("mine", None)
    assert second.data_root == "streets"
    leaf = resolved.val_dataloader.dataset.dataset
    assert (leaf.data_root, leaf.background) == ("streets", 0)
    assert leaf.metainfo.classes == ["sky", "building", "road", "tree", "car"]


def test_classes_of_mmengine_may_stand_for_names() -> None:
    classes = {
        "train_cfg.type": IterBasedTrainLoop,
        "train_dataloader.dataset.type": ZeroShotDataset,
    }
    cfg = changed("otseg/voc_512.py", classes)
    assert resolve(cfg).train_dataloader.dataset.split == resolve(cfg).model.split


TRANSDUCTIVE = "otseg/voc_512_transductive.py"
OWN = dict(classes="voc", unseen=["cow"])


@pytest.mark.parametrize(
    ("config", "changes", "message"),
    [
        ("otseg/voc_512.py", {"split": OWN}, r"split.*model\.split"),
        ("otseg/voc_512.py", {"unseen": ["cow"]}, r"unseen.*model\.split\.unseen"),
        ("otseg/voc_512.py", {"background": 0}, "background=0"),
        ("otseg/voc_512.py", {"data_root": "elsewhere"}, "data_root=elsewhere"),
        ("otseg/voc_512.py", {"val_dataloader.dataset.split": OWN}, "val_dataloader.*cow"),
        ("otseg/voc_512.py", {"model.neck.text.split": OWN}, "cow.*model.split"),
        ("otseg/voc_512.py", {"model.neck.clip": {"model": "ViT-L-14"}}, r"neck\.clip.*ViT-B-16"),
        ("otseg/voc_512.py", {"model.decode_head.num_classes": 21}, "num_classes is 21.* 20 "),
        ("zegot/voc_512.py", {"model.decode_head.num_levels": 2}, "num_levels is 2.* 3 "),
        ("zegot/voc_512.py", {"model.neck.adapters": 2}, "adapters is 2.* 3 "),
        ("otseg/voc_512.py", {"model.neck.train_classes": "all"}, "train_classes='all'.*'seen'"),
        ("otseg/voc_512.py", {"train_dataloader.dataset.setting": "transductive"}, "SelfTraining"),
        (TRANSDUCTIVE, {"train_dataloader.dataset.setting": "inductive"}, "SelfTraining"),
        (TRANSDUCTIVE, {"model.split.unseen": []}, "no class is unseen"),
        (TRANSDUCTIVE, {"default_hooks.self_training.begin": 20000}, "begin=20000.*max_iters"),
        ("otseg/voc_512.py", {"val_evaluator": dict(type="IoUMetric")}, "hIoU.*ZeroShotIoUMetric"),
        ("otseg/voc_512.py", {"test_evaluator.ignore_index": 0}, "ignore_index=0.*aeroplane"),
        ("otseg/voc_512.py", {"model.split.unseen": []}, "hIoU.*mIoU_S.*unseen classes"),
        (
            "own_data/otseg_512.py",
            {"val_evaluator.unseen_labeled": False},
            r"hIoU.*mIoU_S.*\(unseen_labeled\)",
        ),
        ("otseg/voc_512.py", {"default_hooks.checkpoint.save_best": "hiou"}, "'hiou'.*hIoU"),
        ("otseg/voc_512.py", {"train_dataloader.batch_size": 0}, r"train_dataloader\.batch_size"),
        (
            "otseg/voc_512.py",
            {"val_dataloader.dataset": dict(type="PascalVOC20Dataset")},
            "val_evaluator.*ZeroShotDataset",
        ),
        ("otseg/voc_512.py", {"model.test_cfg.none_below": 0.4}, r"model\.split\.background"),
        ("otseg/voc_512.py", {"model.split.background": "threshold"}, r"test_cfg\.none_below"),
    ],
)
def test_contradictions_and_idle_settings(
    config: str, changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        resolve(changed(config, changes))


def test_an_idle_pipeline_is_named(logged: list[str]) -> None:
    for config in ("otseg/voc_512.py", "training_free/names.py"):
        resolve(changed(config, {}))
    assert not logged
    resolve(changed("otseg/voc_512.py", {"crop_size": (96, 96)}))
    assert len(logged) == 1 and "crop_size" in logged[0]


def test_a_config_wired_by_hand_stays_as_it_is() -> None:
    cfg = Config(dict(model=dict(type="EncoderDecoder"), background=0, split="voc"))
    assert resolve(cfg).to_dict() == cfg.to_dict()


def test_the_resolved_config_trains_with_the_stock_runner(
    data_folder: Path, tmp_path: Path
) -> None:
    cfg = resolve(small("otseg/voc_512.py", data_folder, tmp_path / "run"))
    cfg.dump(tmp_path / "resolved.py")
    runner = Runner.from_cfg(Config.fromfile(tmp_path / "resolved.py"))
    runner.train()
    assert runner.iter == 2 and "val/hIoU" in runner.message_hub.log_scalars
