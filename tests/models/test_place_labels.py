from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from mmseg_otseg.imaging import labels_at_size
from mmseg_otseg.models.segmentors.sliding import place_labels

DEVICES = ["cpu", *(["cuda"] if torch.cuda.is_available() else [])]


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize(
    ("classes", "old", "new", "align_corners", "none_below"),
    [
        (1, (5, 6), (30, 40), False, None),
        (20, (32, 48), (200, 333), False, 0.6),
        (171, (32, 48), (200, 333), True, 0.5),
        (20, (64, 50), (20, 17), False, None),
        (7, (1, 9), (5, 90), False, None),
        (7, (16, 1), (16, 1), True, 0.4),
        (3, (30, 30), (1, 1), False, None),
    ],
)
def test_is_the_best_class_of_the_resized_maps(
    device: str,
    classes: int,
    old: tuple[int, int],
    new: tuple[int, int],
    align_corners: bool,
    none_below: float | None,
) -> None:
    torch.manual_seed(0)
    coarse = torch.randn(1, classes, max(2, old[0] // 8), max(2, old[1] // 8), device=device)
    values = F.interpolate(coarse, old, mode="bicubic")[0].sigmoid()
    resized = F.interpolate(values[None], new, mode="bilinear", align_corners=align_corners)[0]
    best, expected = resized.max(0)
    close = (resized > best - 1e-6).sum(0) > 1  # where rounding decides
    if none_below is not None:
        expected[best < none_below] = classes
        close |= (best - none_below).abs() < 1e-6
    found = place_labels(values, new, align_corners, none_below)
    assert found.shape == new and close.float().mean() < 0.01
    assert torch.equal(found[~close], expected[~close])
    other = labels_at_size(values.cpu().numpy(), new, none_below, align_corners)
    assert torch.equal(torch.from_numpy(other.astype("int64")).to(found)[~close], found[~close])


def test_the_first_of_equal_classes_wins() -> None:
    values = torch.zeros(3, 4, 5)
    assert not place_labels(values, (8, 9)).any()
