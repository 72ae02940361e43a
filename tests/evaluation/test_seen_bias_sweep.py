"""One pass gives what as many evaluations as there are biases would give."""

from __future__ import annotations

import json
import multiprocessing
from math import nan
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from mmengine.dataset import DefaultSampler
from mmseg.registry import MODELS

from mmseg_otseg.engine import ZeroShotRunner
from mmseg_otseg.evaluation import (
    SeenBiasMetric,
    ZeroShotIoUMetric,
    best_bias,
    store_seen_bias,
    sweep_seen_bias,
)
from tests.helpers.shapes_run import tiny_config
from tests.helpers.small_configs import small

META = {"classes": ("a", "b", "c", "d", "e"), "seen": [0, 2, 4], "unseen": [1, 3]}
BIASES = [-0.25, 0.0, 0.05, 0.125, 0.5, 2.0]


def samples(number: int, seed: int = 0) -> list[dict[str, Any]]:
    """Images whose probabilities are multiples of 1/8, so that many are equal."""
    generator = torch.Generator().manual_seed(seed)
    made = []
    for _ in range(number):
        label = torch.randint(0, 7, (1, 6, 7), generator=generator)
        label[label == 6] = 255
        logits = torch.randint(0, 9, (5, 6, 7), generator=generator) / 8
        data = {"seg_logits": logits, "gt_sem_seg": label, "pred_sem_seg": label}
        made.append({key: {"data": value} for key, value in data.items()})
    return made


def evaluated(
    metric: ZeroShotIoUMetric, images: list[dict[str, Any]], **meta: Any
) -> dict[str, float]:
    metric.dataset_meta = {**META, **meta}
    metric.process({}, images[:2])
    metric.process({}, images[2:])
    return metric.evaluate(len(images))


@pytest.mark.parametrize("none_below", [None, 0.75])
def test_equals_one_evaluation_per_bias(none_below: float | None) -> None:
    images, meta = samples(5), dict(background="threshold") if none_below else {}
    sweep = SeenBiasMetric(biases=BIASES, none_below=none_below)
    best = evaluated(sweep, images, **meta)
    assert [row["seen_bias"] for row in sweep.table] == BIASES
    seen = torch.tensor([1.0, 0.0, 1.0, 0.0, 1.0])[:, None, None]
    for row in sweep.table:
        predicted = []
        for image in images:
            values, labels = (image["seg_logits"]["data"] - row["seen_bias"] * seen).max(0)
            labels[values < (none_below or -9)] = 5
            predicted.append(image | {"pred_sem_seg": {"data": labels[None]}})
        one = evaluated(ZeroShotIoUMetric(), predicted, **meta)
        assert {"seen_bias": row["seen_bias"], **one} == row
    assert best["hIoU"] == max(row["hIoU"] for row in sweep.table)


def test_class_maps_are_resized_as_by_the_model() -> None:
    images = samples(3)
    small, whole = ([dict(image) for image in images] for _ in range(2))
    for one, other in zip(small, whole):
        maps = torch.rand(5, 3, 4)
        one["seg_logits"] = {"data": maps}
        resized = F.interpolate(maps[None], (6, 7), mode="bilinear")
        other["seg_logits"] = {"data": resized[0]}
    assert evaluated(SeenBiasMetric(), small) == evaluated(SeenBiasMetric(), whole)


@pytest.mark.parametrize("number", [1, 5])
def test_several_processes_count_every_image_once(number: int, tmp_path: Path) -> None:
    """A share of each process as mmengine's sampler deals it, with an image twice if need be."""
    images, processes = samples(number), 2
    alone = SeenBiasMetric(biases=BIASES)
    evaluated(alone, images)

    def run(rank: int) -> None:
        torch.set_num_threads(1)
        torch.distributed.init_process_group(
            "gloo", f"file://{tmp_path}/store", rank=rank, world_size=processes
        )
        metric = SeenBiasMetric(biases=BIASES, collect_device="cpu", collect_dir=f"{tmp_path}/all")
        metric.dataset_meta = META
        for index in DefaultSampler(images, shuffle=False):
            metric.process({}, [images[index]])
        metric.evaluate(number)
        if rank == 0:
            (tmp_path / "table.json").write_text(json.dumps(metric.table))

    context = multiprocessing.get_context("fork")
    started = [context.Process(target=run, args=(rank,)) for rank in range(processes)]
    for process in started:
        process.start()
    for process in started:
        process.join(60)
    assert [process.exitcode for process in started] == [0, 0]
    table = json.loads((tmp_path / "table.json").read_text())
    torch.testing.assert_close(table, alone.table, rtol=0, atol=0, equal_nan=True)


def test_says_why_no_bias_can_be_chosen() -> None:
    table: list[dict[str, float]] = [{"seen_bias": 0.0, "hIoU": nan}, {"seen_bias": 0.1}]
    with pytest.raises(ValueError, match="labeled pixel"):
        best_bias(table)
    rows = [{"seen_bias": bias, "hIoU": 1.0} for bias in (0.5, 0.1, -0.2)]
    assert best_bias([*table, *rows])["seen_bias"] == 0.1  # of equal ones the nearest to zero


def test_a_test_on_the_images_that_chose_the_bias_says_so(
    tmp_path: Path, capfd: pytest.CaptureFixture
) -> None:
    cfg, weights = tiny_config("otseg_plus", tmp_path), tmp_path / "weights.pth"
    runner = ZeroShotRunner.from_cfg(cfg)
    torch.save({"state_dict": runner.model.state_dict()}, weights)
    store_seen_bias(cfg, weights, 0.02, weights)
    for subset, said in (("test", False), ("val", True)):
        cfg = tiny_config("otseg_plus", tmp_path / subset, load_from=str(weights))
        cfg.experiment_name = f"tested on {subset}"
        cfg.test_dataloader.dataset.dataset.subset = subset
        capfd.readouterr()
        ZeroShotRunner.from_cfg(cfg).test()
        assert ("calibrated on these 6 images" in "".join(capfd.readouterr())) == said


def test_sweep_of_a_model_with_a_threshold(data_folder: Path, tmp_path: Path) -> None:
    """As one run with the bias, the threshold included."""
    cfg = small("otseg/voc_512.py", data_folder, tmp_path)
    cfg.model.split = dict(classes="voc", unseen="voc", background="threshold")
    cfg.model.test_cfg.none_below = 0.5
    cfg.model.decode_head.seen_bias = 0.05
    cfg.train_dataloader = cfg.train_cfg = cfg.optim_wrapper = cfg.param_scheduler = None
    cfg.load_from = str(tmp_path / "weights.pth")
    torch.manual_seed(0)
    torch.save(dict(state_dict=MODELS.build(cfg.model).state_dict()), cfg.load_from)
    (row,) = sweep_seen_bias(cfg, cfg.load_from, [0.05], "test")
    cfg.experiment_name = "with the bias"
    metrics = ZeroShotRunner.from_cfg(cfg).test()
    assert row == pytest.approx(dict(metrics, seen_bias=0.05), abs=0.2)
