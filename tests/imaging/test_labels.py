from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from mmseg_otseg.imaging import labels_at_size, resizing


def smooth(classes: int, height: int, width: int) -> np.ndarray:
    values = torch.randn(1, classes, max(2, height // 8), max(2, width // 8))
    return F.interpolate(values, (height, width), mode="bicubic")[0].sigmoid().numpy()


@pytest.mark.parametrize("classes", [1, 2, 20])
@pytest.mark.parametrize(
    ("old", "new"),
    [
        ((32, 48), (200, 333)),
        ((32, 48), (32, 48)),
        ((64, 50), (20, 17)),
        ((1, 40), (5, 90)),
        ((16, 1), (16, 1)),
        ((30, 30), (1, 1)),
    ],
)
@pytest.mark.parametrize("none_below", [None, 0.6])
@pytest.mark.parametrize("align_corners", [False, True])
def test_is_the_best_class_of_the_resized_maps(
    classes: int,
    old: tuple[int, int],
    new: tuple[int, int],
    none_below: float | None,
    align_corners: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    torch.manual_seed(0)
    monkeypatch.setattr(resizing, "TILE", 64)  # several tiles in small images
    values = smooth(classes, *old)
    resized = F.interpolate(
        torch.from_numpy(values)[None], new, mode="bilinear", align_corners=align_corners
    )[0]
    best, expected = resized.max(0)
    if none_below is not None:
        expected[best < none_below] = classes
    found = labels_at_size(values, new, none_below, align_corners)
    assert found.shape == new and found.dtype == np.uint8
    wrong = torch.from_numpy(found.astype(np.int64)) != expected
    # Rounding may only decide between classes that are equal but for it.
    top = resized.sort(0).values
    close = (best - none_below).abs() < 1e-5 if none_below is not None else torch.zeros(new).bool()
    if classes > 1:
        close |= top[-1] - top[-2] < 1e-5
    assert not (wrong & ~close).any()


def test_many_classes_need_two_bytes() -> None:
    values = np.zeros((256, 2, 2), np.float32)
    values[255] = 1
    assert labels_at_size(values, (3, 3)).dtype == np.uint8
    found = labels_at_size(values, (3, 3), none_below=0.5)
    assert found.dtype == np.uint16 and (found == 255).all()
    assert (labels_at_size(0 * values, (3, 3), none_below=0.5) == 256).all()
