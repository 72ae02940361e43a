"""The configs of the shapes benchmark are rows of its table, and fit its data."""

from __future__ import annotations

from mmengine.config import Config

from mmseg_otseg.datasets.shapes import SHAPES_CLASSES, SHAPES_UNSEEN
from tests.helpers.shapes_run import SHAPES
from tools.shapes.run_benchmark import ROWS

CONFIGS = sorted(
    str(path.relative_to(SHAPES).with_suffix(""))
    for path in [*SHAPES.glob("*.py"), *SHAPES.glob("checkpoint/*.py")]
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
