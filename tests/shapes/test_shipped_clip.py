"""The CLIP and the OTSeg+ that the project ships, and their configs."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest
import torch
from mmengine.config import Config
from safetensors.torch import load_file

from mmseg_otseg.datasets.shapes import SHAPES_CLASSES, SHAPES_UNSEEN
from mmseg_otseg.engine import ZeroShotRunner
from mmseg_otseg.evaluation import best_bias, sweep_seen_bias
from mmseg_otseg.inference import OTSegInferencer
from tests.helpers.shapes_run import SHAPES
from tools.shapes.run_benchmark import ROWS

CONFIGS = sorted(
    str(path.relative_to(SHAPES).with_suffix(""))
    for path in [*SHAPES.glob("*.py"), *SHAPES.glob("checkpoint/*.py")]
)


WEIGHTS = SHAPES / "clip" / "shapes_clip.safetensors"
CHECKPOINT = SHAPES / "checkpoint" / "otseg_plus"
ITERATIONS = 400
pytestmark = pytest.mark.skipif(
    not WEIGHTS.is_file(), reason=f"{WEIGHTS.name}, the CLIP of the shapes benchmark, is not there"
)


def test_there_are_all_rows() -> None:
    assert set(ROWS) == set(CONFIGS)


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


def hashed(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()


@pytest.mark.parametrize("folder", ["clip", "checkpoint"])
def test_cards_name_the_files_beside_them(folder: str) -> None:
    (file,) = (SHAPES / folder).glob("*.safetensors")
    assert file.stat().st_size <= (8 if folder == "clip" else 4) * 1e6
    card = (SHAPES / folder / "README.md").read_text()
    assert hashed(file) in card and f"{file.stat().st_size:,} bytes" in card


def test_trained_checkpoint_knows_unseen_classes(tmp_path: Path) -> None:
    """Better than CLIP's own map, on scenes that nothing was trained or chosen with."""
    results = []
    for name, weights in (
        ("training_free", None),
        ("checkpoint/otseg_plus", CHECKPOINT.with_suffix(".safetensors")),
    ):
        cfg = short(name, tmp_path)
        cfg.test_dataloader.dataset.dataset.update(seed=5, length=60)
        results += sweep_seen_bias(cfg, weights, [0.0], subset="test")
    free, trained = results
    for metric in ("mIoU_S", "mIoU_U"):
        assert trained[metric] > max(1.4 * free[metric], free[metric] + 15)


def test_trained_checkpoint_comes_with_its_bias() -> None:
    config, weights = CHECKPOINT.with_suffix(".py"), CHECKPOINT.with_suffix(".safetensors")
    stored = load_file(weights)["decode_head.calibrated_seen_bias.ensemble"].item()
    model = OTSegInferencer(str(config), str(weights)).model
    assert model.decode_head.seen_bias == stored


def short(name: str, work_dir: Path) -> Config:
    """A config of the benchmark at a fraction of its length, evaluated on part of val."""
    cfg = Config.fromfile(SHAPES / f"{name}.py")
    cfg.train_cfg.update(max_iters=ITERATIONS, val_interval=ITERATIONS)
    cfg.param_scheduler.warmup_iters = 10
    cfg.default_hooks.checkpoint.interval = ITERATIONS
    cfg.val_dataloader.dataset.dataset.length = 200
    cfg.work_dir, cfg.experiment_name = str(work_dir / name), f"{name}_short".replace("/", "_")
    cfg.visualizer.pop("name")
    return cfg


@pytest.mark.slow
def test_training_on_seen_classes_helps_unseen_ones(tmp_path: Path) -> None:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        free = best_bias(sweep_seen_bias(short("training_free", tmp_path), None))
        cfg = short("otseg_plus", tmp_path)
        for name in ("cfg", "dataloader", "evaluator"):
            cfg[f"val_{name}"] = cfg[f"test_{name}"] = None
        ZeroShotRunner.from_cfg(cfg).train()
        cfg = short("otseg_plus", tmp_path)
        checkpoint = tmp_path / "otseg_plus" / f"iter_{ITERATIONS}.pth"
        trained = best_bias(sweep_seen_bias(cfg, checkpoint))
    finally:
        torch.set_num_threads(threads)
    assert trained["mIoU_U"] > free["mIoU_U"] > 100 / 20
    assert trained["hIoU"] > free["hIoU"]
