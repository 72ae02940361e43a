from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from mmseg_otseg.imaging import labels_at_size, resize, resizing, windows


def smooth(classes: int, height: int, width: int) -> np.ndarray:
    values = torch.randn(1, classes, max(2, height // 8), max(2, width // 8))
    return F.interpolate(values, (height, width), mode="bicubic")[0].sigmoid().numpy()


@pytest.mark.parametrize(
    ("classes", "old", "new", "none_below", "align_corners"),
    [
        (20, (32, 48), (200, 333), None, False),
        (20, (32, 48), (200, 333), 0.6, True),
        (2, (64, 50), (20, 17), 0.6, False),
        (1, (1, 40), (5, 90), None, True),
        (20, (32, 48), (32, 48), 0.6, False),
        (2, (30, 30), (1, 1), None, False),
    ],
)
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


def test_images_are_rounded() -> None:
    image = np.array([[[0], [255]]], np.uint8)
    assert resize(image, (1, 4))[0, :, 0].tolist() == [0, 64, 191, 255]
    assert resize(image, (1, 2)) is image


def test_windows() -> None:
    assert windows(100, 64, 48) == [slice(0, 64), slice(36, 100)]
    assert windows(64, 64, 48) == [slice(0, 64)]
    assert windows(50, 64, 48) == [slice(0, 50)]
