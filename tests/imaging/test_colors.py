from __future__ import annotations

from itertools import combinations
from typing import Any

import numpy as np
import pytest

from mmseg_otseg.imaging.colors import COLORS, FAR_ENOUGH_KNOWN, palette_for


def nearest(palette: list[list[int]]) -> float:
    return min(float(np.linalg.norm(np.subtract(a, b))) for a, b in combinations(palette, 2))


def test_colors_follow_the_name() -> None:
    first = dict(zip("abcdef", palette_for(list("abcdef"))))
    assert palette_for(["e", "zebra", "b"])[::2] == [first["e"], first["b"]]
    assert palette_for(["Potted_Plants "]) == palette_for(["potted plants"])


def test_colors_of_known_things() -> None:
    sky, trees, street = palette_for(["sky", "Trees", "street"])
    assert max(sky) == sky[2] and max(trees) == trees[1] and np.ptp(street) < 20
    assert palette_for(list(COLORS)) == [list(color) for color in COLORS.values()]
    assert nearest(palette_for(list(COLORS))) >= FAR_ENOUGH_KNOWN
    first, second, third = palette_for(["tree", "trees", "TREE"])
    assert nearest([first, second, third]) >= FAR_ENOUGH_KNOWN and first == trees


@pytest.mark.parametrize(("count", "apart"), [(20, 60), (171, 15)])
def test_the_colors_of_a_list_are_told_apart(count: int, apart: float) -> None:
    palette = palette_for([f"class {index}" for index in range(count)])
    assert nearest(palette) > apart
    assert all(0 <= value <= 255 for color in palette for value in color)


def test_a_dataset_keeps_its_colors() -> None:
    known = {"classes": ("cat", "sky"), "palette": [[1, 2, 3], [4, 5, 6]]}
    assert palette_for(["sky", "zebra"], known)[0] == [4, 5, 6]


@pytest.mark.parametrize("palette", [None, [[1, 2, 3]], [[0, 0, 300]] * 2])
def test_a_palette_that_is_none(palette: Any) -> None:
    known = {"classes": ("cat", "dog"), "palette": palette}
    assert palette_for(["cat"], known) == palette_for(["cat"])
