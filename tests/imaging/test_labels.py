"""Labels at the size of the image, and how they are drawn."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from mmseg_otseg.imaging import heat, labels_at_size, paint, resize, resizing, window_slices

PALETTE = [[200, 0, 0], [0, 200, 0]]


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
    assert window_slices(100, 64, 48) == [slice(0, 64), slice(36, 100)]
    assert window_slices(64, 64, 48) == [slice(0, 64)]
    assert window_slices(50, 64, 48) == [slice(0, 50)]


def test_colors_and_what_has_none() -> None:
    image = np.full((100, 100, 3), 100, np.uint8)
    mask = np.zeros((50, 50), np.uint8)  # of another size: an image that was made smaller
    mask[:, 25:] = 2
    overlay = paint(image, mask, ["cat", "dog"], PALETTE, opacity=0.5)
    assert overlay[2, 2].tolist() == [150, 50, 50]
    assert (overlay[:, 52:] == 100).all()
    # The name stands on its class, on a plate of its color.
    plate = (overlay == PALETTE[0]).all(-1)
    assert plate.any() and not plate[:, 50:].any()


def test_glows_where_the_map_is_large() -> None:
    image = np.full((40, 60, 3), 200, np.uint8)
    values = np.array([[0, 1], [2, 4]]) * 1e-4 - 7
    shown = heat(image, values).astype(int)
    assert shown.shape == image.shape
    corners = [shown[y, x].sum() for y, x in ((0, 0), (0, -1), (-1, 0), (-1, -1))]
    assert corners[3] == max(corners) and corners[3] > 200
    assert shown[0, 0].std() == 0 and shown[0, 0, 0] < 200  # gray and dimmed where there is nothing
    steps = np.abs(np.diff(shown, axis=1)).max()
    assert steps < 60  # smooth, where the nearest of the values would jump


def test_a_name_does_not_cover_a_small_object() -> None:
    mask = np.full((300, 300), 2, np.uint8)
    mask[100:120, 100:120] = 0
    mask[200:290, 150:290] = 1
    overlay = paint(np.zeros((300, 300, 3), np.uint8), mask, ["red circle", "box"], PALETTE, 1)
    assert (overlay[100:120, 100:120] == PALETTE[0]).all()  # no letter is on it
    assert (overlay[200:290, 150:290] != PALETTE[1]).any()  # but on the large one
