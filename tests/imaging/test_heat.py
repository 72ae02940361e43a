from __future__ import annotations

import numpy as np
import pytest

from mmseg_otseg.imaging import heat


@pytest.mark.parametrize("scale", [1.0, 1e-4, 1e4])
def test_glows_where_the_map_is_large_at_any_range(scale: float) -> None:
    image = np.full((40, 60, 3), 200, np.uint8)
    values = np.array([[0, 1], [2, 4]]) * scale - 7
    shown = heat(image, values).astype(int)
    assert shown.shape == image.shape
    corners = [shown[y, x].sum() for y, x in ((0, 0), (0, -1), (-1, 0), (-1, -1))]
    assert corners[3] == max(corners) and corners[3] > 200
    assert shown[0, 0].std() == 0 and shown[0, 0, 0] < 200  # gray and dimmed where there is nothing
    steps = np.abs(np.diff(shown, axis=1)).max()
    assert steps < 60  # smooth, where the nearest of the values would jump
