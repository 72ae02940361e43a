"""The metric against numbers worked out by hand, and over two processes."""

from __future__ import annotations

import logging
import math
from typing import Any

import pytest
import torch
from mmengine.evaluator import Evaluator
from mmengine.logging import MMLogger
from mmseg.evaluation import IoUMetric
from mmseg.registry import METRICS
from torch import distributed, multiprocessing

from mmseg_otseg.evaluation import SeenBiasMetric, ZeroShotIoUMetric
from mmseg_otseg.structures import ClassSplit

META = ClassSplit(("sky", "road", "tree", "car"), (2, 3)).metainfo

# Two images of 2 x 4 pixels. Areas over both, ignored pixels left out:
#   class   label  prediction  both  union  IoU
#   sky       5        4         4     5    4/5
#   road      4        5         3     6    1/2
#   tree      3        4         2     5    2/5
#   car       2        1         1     2    1/2
LABELS = torch.tensor([[[0, 0, 0, 1], [1, 2, 2, 255]], [[0, 0, 1, 1], [2, 3, 3, 255]]])
PREDICTIONS = torch.tensor([[[0, 0, 0, 1], [1, 2, 2, 3]], [[0, 1, 1, 2], [1, 3, 2, 0]]])
EXPECTED = dict(
    pAcc=100 * 10 / 14,
    mIoU=100 * (0.8 + 0.5 + 0.4 + 0.5) / 4,
    mAcc=100 * (4 / 5 + 3 / 4 + 2 / 3 + 1 / 2) / 4,
    mIoU_S=65.0,
    mIoU_U=45.0,
    hIoU=2 * 65 * 45 / 110,
)


def samples(predictions: torch.Tensor, labels: torch.Tensor) -> list[dict]:
    """Image by image what the evaluator hands to a metric."""
    return [
        dict(pred_sem_seg=dict(data=prediction[None]), gt_sem_seg=dict(data=label[None]))
        for prediction, label in zip(predictions, labels)
    ]


def evaluate(predictions, labels, meta=META, **kwargs) -> dict[str, float]:
    metric = ZeroShotIoUMetric(**kwargs)
    metric.dataset_meta = meta
    for sample in samples(predictions, labels):
        metric.process({}, [sample])
    return metric.evaluate(size=len(labels))


@pytest.mark.parametrize("metric", [ZeroShotIoUMetric(), SeenBiasMetric()])
def test_resized_labels_are_refused_by_name(metric: ZeroShotIoUMetric) -> None:
    metric.dataset_meta = META
    (sample,) = samples(PREDICTIONS[:1], LABELS[:1, :, :3])
    sample |= dict(img_path="street.png", seg_logits=dict(data=torch.rand(4, 2, 4)))
    with pytest.raises(ValueError, match=r"street\.png.*2 x 3.*2 x 4.*Resize"):
        metric.process({}, [sample])


def test_numbers_worked_out_by_hand():
    metrics = evaluate(PREDICTIONS, LABELS)
    assert list(metrics) == ["pAcc", "mIoU", "mAcc", "mIoU_S", "mIoU_U", "hIoU"]
    assert metrics == pytest.approx(EXPECTED, abs=0.006)
    assert all(type(value) is float for value in metrics.values())


def test_agrees_with_mmsegs_metric():
    generator = torch.Generator().manual_seed(0)
    labels = torch.randint(0, 4, (3, 20, 30), generator=generator)
    predictions = torch.where(
        torch.rand(labels.shape, generator=generator) < 0.6, labels, labels.flip(0)
    )
    plain = IoUMetric()
    plain.dataset_meta = META
    plain.process({}, samples(predictions, labels))
    theirs = plain.evaluate(3)
    ours = evaluate(predictions, labels)
    assert (ours["pAcc"], ours["mIoU"], ours["mAcc"]) == pytest.approx(
        (theirs["aAcc"], theirs["mIoU"], theirs["mAcc"]), abs=0.011
    )


def test_harmonic_mean_is_zero_when_both_are():
    labels = torch.tensor([[[0, 1, 2, 3]]])
    metrics = evaluate((labels + 1) % 4, labels)
    assert (metrics["mIoU_S"], metrics["mIoU_U"], metrics["hIoU"]) == (0, 0, 0)


def test_harmonic_mean_is_zero_when_one_is():
    labels = torch.tensor([[[0, 1, 2, 3]]])
    metrics = evaluate(torch.tensor([[[0, 1, 1, 1]]]), labels)
    assert metrics["mIoU_S"] > 0 and (metrics["mIoU_U"], metrics["hIoU"]) == (0, 0)


def test_absent_classes_do_not_count():
    labels = torch.tensor([[[0, 0, 2, 2]]])  # neither road nor car, here and in the predictions
    metrics = evaluate(torch.tensor([[[0, 0, 2, 0]]]), labels)
    assert metrics["mIoU_S"] == pytest.approx(66.67)
    assert metrics["mIoU_U"] == 50
    assert metrics["mIoU"] == pytest.approx(100 * (2 / 3 + 1 / 2) / 2, abs=0.006)


def test_no_unseen_class_in_sight(recwarn):
    labels = torch.tensor([[[0, 0, 1, 1]]])
    metrics = evaluate(labels, labels)
    assert metrics["mIoU"] == metrics["mIoU_S"] == 100
    assert math.isnan(metrics["mIoU_U"]) and math.isnan(metrics["hIoU"])
    assert not [w for w in recwarn if issubclass(w.category, RuntimeWarning)]


def test_nan_to_num():
    labels = torch.tensor([[[0, 0, 2, 2]]])
    metrics = evaluate(labels, labels, nan_to_num=0)
    assert (metrics["mIoU_S"], metrics["mIoU_U"], metrics["hIoU"]) == (50, 50, 50)


def test_supervised():
    meta = ClassSplit(META["classes"]).metainfo
    metrics = evaluate(PREDICTIONS, LABELS, meta)
    assert list(metrics) == ["pAcc", "mIoU", "mAcc", "mIoU_S"]
    assert metrics["mIoU_S"] == metrics["mIoU"]


def test_further_metrics():
    metrics = evaluate(PREDICTIONS, LABELS, iou_metrics=["mFscore", "mDice"])
    assert {"mIoU", "mDice", "mFscore", "hIoU"} <= set(metrics)
    assert evaluate(PREDICTIONS, LABELS, iou_metrics="mIoU") == evaluate(PREDICTIONS, LABELS)


def test_large_areas_are_counted_exactly():
    # 2^24 + 1 is no float32: in float32 sums the pixels of the later images would vanish.
    first = torch.tensor([2.0**24, 0, 0, 0])
    later = torch.tensor([1.0, 0, 0, 0])
    metric = ZeroShotIoUMetric()
    metric.dataset_meta = META
    images = [(first, first, first, first)] + [(later * 0, later, later, later)] * 2**12
    seen = []
    metric.total_area_to_metrics = lambda *areas: (
        seen.append([area[0].item() for area in areas[:4]])
        or IoUMetric.total_area_to_metrics(*areas)
    )
    metric.compute_metrics(images)
    assert seen == [[2**24] + [2**24 + 2**12] * 3]


def logged(predictions: torch.Tensor, labels: torch.Tensor = LABELS) -> str:
    """What an evaluation says in the log."""
    logger = MMLogger.get_current_instance()
    records: list[str] = []
    handler: Any = logging.Handler()
    handler.emit = lambda record: records.append(f"{record.levelname}: {record.getMessage()}")
    logger.addHandler(handler)
    try:
        evaluate(predictions, labels)
    finally:
        logger.removeHandler(handler)
    return "\n".join(records)


def row(text: str, name: str) -> list[str]:
    """The row of a class in the table of classes."""
    (found,) = (line for line in text.splitlines() if line.split("|")[1:2] and f" {name} " in line)
    return [cell.strip() for cell in found.split("|")[1:-1]]


def test_table_marks_seen_and_unseen():
    text = logged(PREDICTIONS)
    assert [row(text, name)[1] for name in META["classes"]] == ["S", "S", "U", "U"]
    assert "40.0" in row(text, "tree")
    assert "mIoU(S)" in text and "mIoU(U)" in text and "hIoU" in text
    assert "at 0" not in text and "calibrate_seen_bias.py" not in text


def test_classes_at_zero_are_marked_and_unseen_ones_explained():
    never_car = torch.where(PREDICTIONS == 3, 1, PREDICTIONS)
    text = logged(never_car)
    assert [row(text, name)[-1] for name in META["classes"]] == ["", "", "", "at 0"]
    (warning,) = (line for line in text.splitlines() if "calibrate_seen_bias.py" in line)
    assert "1 of 2 unseen" in warning and "(car)" in warning and "check_data.py" in warning


def test_classes_without_a_pixel_are_not_at_zero():
    predicted = torch.where(LABELS == 1, 3, PREDICTIONS)
    text = logged(predicted, torch.where(LABELS == 3, 255, LABELS))
    assert row(text, "car")[2:] == ["0.0", "nan", ""] and "calibrate_seen_bias.py" not in text


def test_a_bias_that_leaves_nothing_to_the_seen_classes():
    text = logged(torch.where(LABELS == 2, 2, 3))
    (warning,) = (line for line in text.splitlines() if "calibrate_seen_bias.py" in line)
    assert "All seen" in warning


def test_a_model_that_finds_nothing_gets_no_advice_about_unseen_classes():
    text = logged((LABELS + 1) % 4)
    assert [row(text, name)[-1] for name in META["classes"]] == ["at 0"] * 4
    assert "calibrate_seen_bias.py" not in text


def test_unseen_classes_without_labels_are_not_measured():
    labels = torch.where((LABELS == 2) | (LABELS == 3), 255, LABELS)
    assert evaluate(PREDICTIONS, labels)["hIoU"] == 0
    metrics = evaluate(PREDICTIONS, labels, unseen_labeled=False)
    assert "hIoU" not in metrics and "mIoU_U" not in metrics
    # Sky: 4 of 5 pixels are found, no other. Road: 3 of 4, and one of sky's.
    assert metrics["mIoU_S"] == metrics["mIoU"] == pytest.approx(100 * (4 / 5 + 3 / 5) / 2)
    metric = ZeroShotIoUMetric(unseen_labeled=False)
    metric.dataset_meta = META
    assert metric.names == {"mIoU_S"}  # a run cannot be asked to keep the best hIoU


def test_needs_a_split():
    with pytest.raises(ValueError, match="ZeroShotDataset"):
        evaluate(PREDICTIONS, LABELS, dict(classes=META["classes"]))


def test_refuses_hidden_labels():
    with pytest.raises(ValueError, match="test_mode=True"):
        evaluate(PREDICTIONS, LABELS, dict(META, hide_as=255))


def test_format_only(tmp_path):
    metric = ZeroShotIoUMetric(format_only=True, output_dir=str(tmp_path))
    metric.dataset_meta = META
    sample = dict(samples(PREDICTIONS, LABELS)[0], img_path="somewhere/1.jpg")
    metric.process({}, [sample])
    assert metric.evaluate(1) == {}
    assert (tmp_path / "1.png").is_file()


def test_built_by_an_evaluator():
    evaluator = Evaluator(METRICS.build(dict(type="ZeroShotIoUMetric", prefix="val")))
    evaluator.dataset_meta = META
    for sample in samples(PREDICTIONS, LABELS):
        evaluator.process([sample], None)
    assert evaluator.evaluate(2)["val/hIoU"] == pytest.approx(EXPECTED["hIoU"], abs=0.006)


def _evaluate_a_share(rank: int, rendezvous: str, out: str) -> None:
    torch.set_num_threads(1)  # as in the workers of a DataLoader, which are forked as well
    distributed.init_process_group("gloo", f"file://{rendezvous}", rank=rank, world_size=2)
    metric = ZeroShotIoUMetric()
    metric.dataset_meta = META
    metric.process({}, [samples(PREDICTIONS, LABELS)[rank]])
    metrics = metric.evaluate(size=2)
    torch.save(metrics, f"{out}/{rank}.pt")
    distributed.destroy_process_group()


def test_two_processes(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # mmengine exchanges the parts in a folder it makes here
    multiprocessing.start_processes(
        _evaluate_a_share, (str(tmp_path / "meet"), str(tmp_path)), nprocs=2, start_method="fork"
    )
    for rank in range(2):
        assert torch.load(tmp_path / f"{rank}.pt") == pytest.approx(EXPECTED, abs=0.006)
