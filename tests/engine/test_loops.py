"""One line of a config names the classes for the model, the data and the metric."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from mmengine.config import Config
from mmengine.runner import Runner
from mmseg.registry import DATASETS, LOOPS, MODELS

from mmseg_otseg.engine import with_split
from mmseg_otseg.engine.hooks import RunCheckHook
from mmseg_otseg.inference import OTSegInferencer
from mmseg_otseg.models import PrecomputedPrompts
from mmseg_otseg.structures import ClassSplit
from tests.helpers.otseg_run import otseg_config
from tests.helpers.paths import ROOT
from tests.helpers.small_configs import small, write_data
from tests.helpers.tiny_run import CLASSES, write_images

UNSEEN = ("cow", "motorbike")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("voc")
    write_data(folder)
    return folder


def derived(folder: Path, base: str, line: str) -> Config:
    """A config of the user's own: one of the project's, and a line."""
    (folder / "mine.py").write_text(f'_base_ = "{ROOT / "configs" / base}"\n{line}\n')
    return Config.fromfile(folder / "mine.py")


def by_option(cfg: Config, **options: Any) -> Config:
    """A config changed as by ``--cfg-options``; ``__`` stands for a dot."""
    cfg.merge_from_dict({name.replace("__", "."): value for name, value in options.items()})
    return cfg


@pytest.mark.parametrize("method", ["otseg", "zegot"])
@pytest.mark.parametrize("way", ["file", "option"])
def test_other_unseen_classes_are_one_line(
    method: str, way: str, data: Path, tmp_path: Path
) -> None:
    base = f"{method}/voc_512.py"
    if way == "file":
        cfg = derived(tmp_path, base, 'model = dict(split=dict(unseen=["cow", "motorbike"]))')
    else:
        cfg = by_option(Config.fromfile(ROOT / "configs" / base), model__split__unseen=[*UNSEEN])
    cfg = small(cfg, data)
    cfg.work_dir, cfg.experiment_name = str(tmp_path / "run"), f"{method}_{way}"
    runner = Runner.from_cfg(cfg)
    runner.train()
    train, val = runner.train_dataloader.dataset, runner.val_dataloader.dataset
    assert runner.model.neck.text.split.unseen_names == UNSEEN
    assert train.split == val.split == runner.model.neck.text.split
    assert runner.val_evaluator.metrics[0].dataset_meta["unseen"] == [9, 13]
    assert runner.model.decode_head.num_classes == 20
    assert {"val/mIoU_U", "val/hIoU"} <= runner.message_hub.log_scalars.keys()

    (checkpoint,) = (tmp_path / "run").glob("iter_2.pth")
    inferencer = OTSegInferencer(cfg, str(checkpoint), device="cpu")  # builds no dataset
    assert inferencer.model.neck.text.split == train.split
    # What the run wrote down of itself says the same, in one place.
    (written,) = (tmp_path / "run").glob("*.py")
    assert "split" not in Config.fromfile(written).train_dataloader.dataset


def test_other_classes_are_one_line(data: Path, tmp_path: Path) -> None:
    cfg = derived(tmp_path, "cross_dataset/context_to_voc_512.py", 'model = dict(split="voc")')
    cfg = small(cfg, data)
    cfg.work_dir = str(tmp_path / "run")
    runner = Runner.from_cfg(cfg)
    metrics = runner.test()
    assert runner.test_dataloader.dataset.split.unseen == (15, 16, 17, 18, 19)
    assert "hIoU" in metrics  # the config itself holds no class back


@pytest.mark.parametrize("way", ["file", "option"])
def test_own_text_embeddings_are_one_line(way: str, data: Path, tmp_path: Path) -> None:
    path = tmp_path / "text.npy"
    np.save(path, np.random.default_rng(0).standard_normal((20, 3, 32), np.float32))
    if way == "file":
        cfg = derived(tmp_path, "otseg/voc_512.py", f'model = dict(neck=dict(text="{path}"))')
    else:
        cfg = by_option(
            Config.fromfile(ROOT / "configs/otseg/voc_512.py"), model__neck__text=str(path)
        )
    text = MODELS.build(small(cfg, data).model).neck.text
    assert isinstance(text, PrecomputedPrompts)
    assert text.num_prompts == 3 and text.split == ClassSplit.build("voc")


@pytest.mark.parametrize("method", ["otseg", "zegot"])
def test_without_effect_is_an_error(method: str, data: Path, tmp_path: Path) -> None:
    lines = {
        'split = dict(classes="voc", unseen=["cow"])': r"split.*model=dict",
        'split = dict(unseen=["cow"])': r"split.*model=dict",
        'val_dataloader = dict(dataset=dict(split=dict(classes="voc", unseen=["cow"])))': (
            "model .*validation .*cow"
        ),
        'model = dict(neck=dict(text=dict(split=dict(classes="voc", unseen=["cow"]))))': (
            "model.split .*neck.*cow"
        ),
        "model = dict(decode_head=dict(num_classes=21))": "num_classes=21.* 20 ",
        "model = dict(decode_head=dict(num_levels=2))": "num_levels=2.*out_indices",
        "model = dict(neck=dict(adapters=2))": "adapters=2.*out_indices",
    }
    for number, (line, message) in enumerate(lines.items()):
        cfg = small(derived(tmp_path, f"{method}/voc_512.py", line), data)
        cfg.work_dir, cfg.experiment_name = str(tmp_path / "run"), f"idle_{method}_{number}"
        with pytest.raises(ValueError, match=message):
            Runner.from_cfg(cfg).train()
        if line.startswith("split"):
            with pytest.raises(ValueError, match=message):
                OTSegInferencer(cfg, device="cpu")


def test_a_config_that_names_the_split_in_every_place_still_runs(tmp_path: Path) -> None:
    write_images(tmp_path)
    cfg = otseg_config(tmp_path)
    assert "split" in cfg.model.neck.text and "split" in cfg.train_dataloader.dataset
    cfg.custom_hooks.append(dict(type="VocabularyCheckHook"))
    runner = Runner.from_cfg(cfg)
    runner.train()
    assert sum(isinstance(hook, RunCheckHook) for hook in runner.hooks) == 1
    assert runner.train_dataloader.dataset.split.unseen_names == ("right",)


@pytest.mark.parametrize("part", ["train", "val"])
def test_places_that_differ_are_refused_without_our_runtime(part: str, tmp_path: Path) -> None:
    write_images(tmp_path)
    cfg = otseg_config(tmp_path)
    cfg.custom_hooks = []
    cfg[f"{part}_dataloader"].dataset.split = dict(classes=CLASSES, unseen=["left"])
    with pytest.raises(ValueError, match=r"data.*unseen.*right.*left"):
        Runner.from_cfg(cfg).train()


def test_every_loop_of_mmseg_is_ours() -> None:
    for name in ("IterBasedTrainLoop", "EpochBasedTrainLoop", "ValLoop", "TestLoop"):
        assert LOOPS.get(name).__module__ == "mmseg_otseg.engine.loops"


def test_nested_data_sets_get_the_split_and_keep_their_own() -> None:
    inner = dict(type="ZeroShotDataset", dataset=dict(type="BaseSegDataset"))
    own = dict(inner, split="context")
    config = dict(dataset=dict(type="ConcatDataset", datasets=[inner, own]))
    filled = with_split(config, "voc").dataset.datasets
    assert [dataset.split for dataset in filled] == ["voc", "context"]
    assert "split" not in inner and "split" not in filled[0].dataset


def test_a_data_set_without_a_split_says_where_to_set_it() -> None:
    with pytest.raises(ValueError, match=r"model=dict\(split="):
        DATASETS.build(dict(type="ZeroShotDataset", dataset=dict(type="BaseSegDataset")))
