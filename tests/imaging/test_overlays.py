from __future__ import annotations

import numpy as np

from mmseg_otseg.imaging import heat, paint

PALETTE = [[200, 0, 0], [0, 200, 0]]


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
