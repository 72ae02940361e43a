"""Test runs with a background that counts, against counts made by NumPy."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmseg.registry import MODELS
from PIL import Image

from mmseg_otseg.engine import ZeroShotRunner, resolve
from mmseg_otseg.evaluation import sweep_seen_bias
from mmseg_otseg.structures import ClassSplit
from tests.helpers.small_configs import small, write_data


def counted(predictions: Any, labels: Any, count: int, ignored: int) -> dict[str, Any]:
    """pAcc, mIoU and the IoU of each class, in percent, from all pixels of all images."""
    predicted, label = (np.concatenate([*map(np.ravel, maps)]) for maps in (predictions, labels))
    predicted, label = predicted[label != ignored], label[label != ignored]
    iou = np.full(count, np.nan)
    for k in np.union1d(predicted, label):
        iou[k] = ((predicted == k) & (label == k)).sum() / ((predicted == k) | (label == k)).sum()
    return dict(pAcc=100 * (predicted == label).mean(), mIoU=100 * np.nanmean(iou), iou=100 * iou)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("data")
    write_data(root)
    return root


def run(cfg: Config, data: Path, name: str) -> tuple[dict[str, float], list[np.ndarray]]:
    """The metrics of a test run, and its predictions as files hold them."""
    cfg.work_dir, cfg.experiment_name = str(data / name), name
    cfg.test_evaluator.output_dir = str(data / name / "out")
    metrics = ZeroShotRunner.from_cfg(cfg).test()
    files = sorted((data / name / "out").glob("*.png"))
    return metrics, [np.asarray(Image.open(file)) for file in files]


def voc(config: str, data: Path, mode: str) -> Config:
    cfg = small(config, data)
    if mode == "names":
        names = [*ClassSplit.build("voc").classes, "background | wall | sky"]
        cfg.model.split = dict(classes=names, background="names")
    else:
        cfg.model.split = dict(classes="voc", background="threshold")
        cfg.model.test_cfg.none_below = 0.4
    cfg.train_dataloader = cfg.train_cfg = cfg.optim_wrapper = cfg.param_scheduler = None
    return cfg


# Training-free: tests/datasets/test_open_vocabulary.py
@pytest.mark.parametrize(
    ("config", "mode"),
    [
        ("otseg/voc_512.py", "threshold"),
        ("zegot/voc_512.py", "names"),
        ("zegclip/voc_512.py", "threshold"),
    ],
)
def test_figures_of_a_run_are_those_of_its_files(config: str, mode: str, data: Path) -> None:
    """The files have the values of the label files, in which 0 is the background."""
    cfg = voc(config, data, mode)
    metrics, predictions = run(cfg, data, f"{Path(config).parent}_{mode}")
    labels = sorted((data / "data/VOCdevkit/VOC2012/SegmentationClass").glob("val*.png"))
    hand = counted(predictions, [np.asarray(Image.open(file)) for file in labels], 21, 255)
    assert metrics["mIoU"] == pytest.approx(hand["mIoU"], abs=0.006)
    assert metrics["pAcc"] == pytest.approx(hand["pAcc"], abs=0.006)
    if mode == "threshold":
        shares = [(values == 0).mean() for values in predictions]
        assert 0 < np.mean(shares) < 1, shares


def test_sweep_of_a_model_with_a_threshold(data: Path) -> None:
    cfg = voc("otseg/voc_512.py", data, "threshold")
    cfg.model.split.unseen = "voc"
    cfg.model.decode_head.seen_bias = 0.05
    cfg.train_dataloader = None
    torch.manual_seed(0)
    state = MODELS.build(resolve(cfg).model).state_dict()
    torch.save(dict(state_dict=state), data / "weights.pth")
    cfg.load_from = str(data / "weights.pth")
    cfg.experiment_name = "sweep"
    (row,) = sweep_seen_bias(cfg, data / "weights.pth", [0.05], "test")
    metrics, _ = run(cfg, data, "swept")
    assert row == pytest.approx(dict(metrics, seen_bias=0.05), abs=0.2)
