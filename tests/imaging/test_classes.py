from __future__ import annotations

from typing import Any

import pytest

from mmseg_otseg.imaging import class_names, palette_for


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("cat", ["cat"]),
        ("cat, sofa ,potted plant", ["cat", "sofa", "potted plant"]),
        ('cat, "chair, wooden", sofa', ["cat", "chair, wooden", "sofa"]),
        ('"chair, wooden"', ["chair, wooden"]),
        ("cat,,dog", ["cat", "", "dog"]),
        ("", [""]),
    ],
)
def test_names_in_a_line(text: str, names: list[str]) -> None:
    assert class_names(text) == names


def test_open_quote() -> None:
    with pytest.raises(ValueError, match="chair, wooden"):
        class_names('cat, "chair, wooden')


def test_palette() -> None:
    known = {"classes": ("cat", "dog"), "palette": [[1, 2, 3], [4, 5, 6]]}
    palette = palette_for(["dog", "zebra", "ox"], known)
    assert palette[0] == [4, 5, 6]
    many = palette_for([str(index) for index in range(200)])
    assert len({tuple(color) for color in many}) == 200
    assert all(0 <= value <= 255 for color in many for value in color)


@pytest.mark.parametrize("palette", [None, "red", [[1, 2, 3]], [["a", 1, 2]], [[0, 0, 300]] * 2])
def test_a_palette_that_is_none(palette: Any) -> None:
    known = {"classes": ("cat", "dog"), "palette": palette}
    assert palette_for(["cat"], known) == palette_for(["cat"])
