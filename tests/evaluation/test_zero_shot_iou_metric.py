"""The metric against numbers worked out by hand."""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

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


def samples(predictions: Tensor, labels: Tensor) -> list[dict]:
    """Image by image what the evaluator hands to a metric."""
    return [
        dict(pred_sem_seg=dict(data=prediction[None]), gt_sem_seg=dict(data=label[None]))
        for prediction, label in zip(predictions, labels)
    ]


def evaluate(predictions: Tensor, labels: Tensor, meta=META, **kwargs: Any) -> dict[str, float]:
    metric = ZeroShotIoUMetric(**kwargs)
    metric.dataset_meta = meta
    for sample in samples(predictions, labels):
        metric.process({}, [sample])
    return metric.evaluate(size=len(labels))


def test_numbers_worked_out_by_hand():
    metrics = evaluate(PREDICTIONS, LABELS)
    assert list(metrics) == ["pAcc", "mIoU", "mAcc", "mIoU_S", "mIoU_U", "hIoU"]
    assert metrics == pytest.approx(EXPECTED, abs=0.006)
    assert all(type(value) is float for value in metrics.values())
    more = evaluate(PREDICTIONS, LABELS, iou_metrics=["mFscore", "mDice"])
    assert {"mIoU", "mDice", "mFscore", "hIoU"} <= set(more)
    supervised = evaluate(PREDICTIONS, LABELS, ClassSplit(META["classes"]).metainfo)
    assert list(supervised) == ["pAcc", "mIoU", "mAcc", "mIoU_S"]
    assert supervised["mIoU_S"] == supervised["mIoU"]


@pytest.mark.parametrize(
    ("kind", "first", "ignored"),
    [(torch.uint8, 0, 200), (torch.uint16, 253, 65535), (torch.int32, 253, 300)],
)
def test_wide_labels_and_any_ignored_value(kind: torch.dtype, first: int, ignored: int):
    """254 and 255 are classes like others, and of 300 classes only what occurs is kept."""
    meta = ClassSplit(tuple(map(str, range(300))), (first + 2, first + 3)).metainfo
    labels = torch.where(LABELS == 255, ignored, LABELS + first).to(kind)
    metric = ZeroShotIoUMetric(ignore_index=ignored)
    metric.dataset_meta = meta
    metric.process({}, samples(PREDICTIONS + first, labels))
    assert all(image.numel() <= 16 for image in metric.results)
    assert metric.evaluate(2) == pytest.approx(EXPECTED, abs=0.006)


def test_labels_that_cannot_be_compared_are_refused_by_name():
    for metric in (ZeroShotIoUMetric(), SeenBiasMetric()):
        metric.dataset_meta = META
        (sample,) = samples(PREDICTIONS[:1], LABELS[:1, :, :3])
        sample |= dict(img_path="street.png", seg_logits=dict(data=torch.rand(4, 2, 4)))
        with pytest.raises(ValueError, match=r"street\.png.*2 x 3.*2 x 4.*Resize"):
            metric.process({}, [sample])
    with pytest.raises(ValueError, match="ZeroShotDataset"):
        evaluate(PREDICTIONS, LABELS, dict(classes=META["classes"]))


def test_harmonic_mean_is_zero_when_one_mean_is():
    labels = torch.tensor([[[0, 1, 2, 3]]])
    metrics = evaluate((labels + 1) % 4, labels)
    assert (metrics["mIoU_S"], metrics["mIoU_U"], metrics["hIoU"]) == (0, 0, 0)
    metrics = evaluate(torch.tensor([[[0, 1, 1, 1]]]), labels)
    assert metrics["mIoU_S"] > 0 and (metrics["mIoU_U"], metrics["hIoU"]) == (0, 0)


@pytest.mark.parametrize("nan", [None, 0, -1])
def test_absent_classes_do_not_count(nan: int | None):
    labels = torch.tensor([[[0, 0, 2, 2]]])  # neither road nor car, here and in the predictions
    metrics = evaluate(torch.tensor([[[0, 0, 2, 0]]]), labels, nan_to_num=nan)
    assert metrics["mIoU_S"] == pytest.approx(66.67)
    assert metrics["mIoU_U"] == 50
    assert metrics["mIoU"] == pytest.approx(100 * (2 / 3 + 1 / 2) / 2, abs=0.006)
    unlabeled = evaluate(labels, labels * 0 + 2, nan_to_num=nan)  # no seen class has labels
    assert unlabeled["hIoU"] == pytest.approx(math.nan if nan is None else 100 * nan, nan_ok=True)


def test_large_areas_are_counted_exactly():
    # 2^24 + 1 is no float32: in float32 sums the pixels of the later images would vanish.
    metric = ZeroShotIoUMetric()
    metric.dataset_meta = META
    first, later = (
        torch.tensor([[0], [2**24], [2**24], [2**24]]),
        torch.tensor([[0], [0], [1], [1]]),
    )
    assert metric.compute_metrics([first] + [later] * 2**12)["pAcc"] == 99.98


def row(text: str, name: str) -> list[str]:
    """The row of a class in the table of classes."""
    (found,) = (line for line in text.splitlines() if line.split("|")[1:2] and f" {name} " in line)
    return [cell.strip() for cell in found.split("|")[1:-1]]


NO_CAR, NO_ROAD = PREDICTIONS.where(PREDICTIONS != 3, 1), PREDICTIONS.where(PREDICTIONS != 1, 0)
ALL_UNSEEN, ALL_WRONG = LABELS.where(LABELS == 2, 3), (LABELS + 1) % 4


@pytest.mark.parametrize(
    ("predictions", "said", "not_said"),
    [
        (NO_CAR, r" 1 of 2 unseen classes \(car\)\..*small.*calibrate", "of 2 seen"),
        (NO_ROAD, "summary", " of 2 "),
        (ALL_UNSEEN, r" 2 of 2 seen .*\(sky, road\)\..*large.*calibrate", "of 2 unseen"),
        (ALL_WRONG, " 2 of 2 seen .* 2 of 2 unseen .*train.*check-data", "calibrate"),
    ],
)
def test_advice_names_what_is_at_zero_and_the_next_step(
    predictions: Tensor, said: str, not_said: str, logged: list[str]
):
    evaluate(predictions, LABELS)
    text = "\n".join(logged)
    assert re.search(said, text) and not re.search(not_said, text)
    zero = [row(text, name)[-1] == "at 0" for name in META["classes"]]
    assert zero == [bool((predictions[index == LABELS] != index).all()) for index in range(4)]


def test_classes_without_a_pixel_are_not_at_zero(logged: list[str]):
    evaluate(torch.where(LABELS == 1, 3, PREDICTIONS), torch.where(LABELS == 3, 255, LABELS))
    text = "\n".join(logged)
    assert row(text, "car")[2:] == ["0.0", "nan", ""] and "(car)" not in text
    assert [row(text, name)[1] for name in META["classes"]] == ["S", "S", "U", "U"]


def test_unseen_classes_without_labels_are_not_measured(logged: list[str]):
    labels = torch.where((LABELS == 2) | (LABELS == 3), 255, LABELS)
    metrics = evaluate(PREDICTIONS, labels)
    assert "hIoU" not in metrics and "mIoU_U" not in metrics
    # Sky: 4 of 5 pixels are found, no other. Road: 3 of 4, and one of sky's.
    assert metrics["mIoU_S"] == metrics["mIoU"] == pytest.approx(100 * (4 / 5 + 3 / 5) / 2)
    assert metrics == evaluate(PREDICTIONS, labels, unseen_labeled=False)
    assert any("unseen_labeled=False" in message for message in logged)


def test_writes_predictions_of_any_number_of_classes(tmp_path: Path):
    for count in (4, 300):
        metric = ZeroShotIoUMetric(format_only=True, output_dir=str(tmp_path))
        metric.dataset_meta = ClassSplit(tuple(map(str, range(count))), (1,)).metainfo
        sample = dict(samples(PREDICTIONS + count - 4, LABELS)[0], img_path="somewhere/1.jpg")
        metric.process({}, [sample])
        assert metric.evaluate(1) == {}
        written = np.asarray(Image.open(tmp_path / "1.png"))
        assert (written == PREDICTIONS[0].numpy() + count - 4).all()
