"""The configs of the shapes benchmark build, train and evaluate."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from mmengine.config import Config

from mmseg_otseg.datasets.shapes import SHAPES_CLASSES, SHAPES_UNSEEN
from mmseg_otseg.engine import ZeroShotRunner
from tests.helpers.shapes_run import SHAPES, tiny_config
from tools.shapes.run_benchmark import ROWS

CONFIGS = sorted(
    str(path.relative_to(SHAPES).with_suffix(""))
    for path in [*SHAPES.glob("*.py"), *SHAPES.glob("checkpoint/*.py")]
)
# The methods whose code differs; OTSeg and OTSeg+ are trained by the test of the benchmark.
TRAINED = ["zegclip", "softmax", "mps_only", "zegot"]


def test_there_are_all_rows() -> None:
    assert set(ROWS) == set(CONFIGS)


@pytest.mark.parametrize("name", TRAINED)
def test_two_iterations_and_an_evaluation(name: str, tmp_path: Path) -> None:
    cfg = tiny_config(name, tmp_path)
    cfg.train_cfg.update(max_iters=2, val_interval=2)
    cfg.experiment_name = name.replace("/", "_")
    runner = ZeroShotRunner.from_cfg(cfg)
    before = {n: p.detach().clone() for n, p in runner.model.named_parameters()}
    runner.train()
    moved = {n for n, p in runner.model.named_parameters() if not torch.equal(p, before[n])}
    assert moved == {n for n, p in runner.model.named_parameters() if p.requires_grad}
    assert "val/hIoU" in runner.message_hub.log_scalars


def test_training_free_only_tests(tmp_path: Path) -> None:
    cfg = tiny_config("training_free", tmp_path)
    runner = ZeroShotRunner.from_cfg(cfg)
    assert not any(parameter.requires_grad for parameter in runner.model.parameters())
    assert {"mIoU_S", "mIoU_U", "hIoU"} <= runner.test().keys()
    cfg.experiment_name = "training_free_training"
    with pytest.raises(ValueError, match=r"CLIPEncoderDecoder.*gradient"):
        ZeroShotRunner.from_cfg(cfg).train()


def test_the_split_is_the_data_sets() -> None:
    cfg = Config.fromfile(SHAPES / "otseg.py")
    assert tuple(cfg.model.split.classes) == SHAPES_CLASSES
    assert set(cfg.model.split.unseen) == set(SHAPES_UNSEEN)
    subsets = [cfg[f"{name}_dataloader"].dataset.dataset for name in ("train", "val", "test")]
    assert [data.subset for data in subsets] == ["train", "val", "test"]
    assert {data.size for data in subsets} == {cfg.clip.model.vision_cfg.image_size}
    assert set(cfg.model.data_preprocessor.size) == {cfg.clip.model.vision_cfg.image_size}
    assert cfg.model.data_preprocessor.mean == cfg.preprocess.mean
    assert cfg.model.data_preprocessor.std == cfg.preprocess.std
