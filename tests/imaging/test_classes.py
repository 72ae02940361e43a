from __future__ import annotations

from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mmseg_otseg.errors import UserError
from mmseg_otseg.imaging import class_list
from mmseg_otseg.imaging.colors import COLORS, FAR_ENOUGH_KNOWN, palette_for

KNOWN = {"voc": ("aeroplane", "bicycle")}


@pytest.mark.parametrize(
    ("given", "names"),
    [
        ("cat, sofa ,potted plant", ["cat", "sofa", "potted plant"]),
        ('cat, "chair, wooden", sofa', ["cat", "chair, wooden", "sofa"]),
        ("['a','b, c']", ["a", "b, c"]),
        ("voc", ["aeroplane", "bicycle"]),
        ('"voc"', ["voc"]),
        ('"road (paved, gray)", sky', ["road (paved, gray)", "sky"]),
        (("cat", "chair, wooden"), ["cat", "chair, wooden"]),
        (["cat ", " sofa"], ["cat", "sofa"]),
    ],
)
def test_names_however_they_are_given(given: Any, names: list[str]) -> None:
    assert class_list(given, KNOWN) == names


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ('cat, "chair, wooden', "chair, wooden"),
        ('cat, "chair, wooden" | seat', "all names"),
        ("cat,,dog", "number 2"),
        ([1], "number 1"),
        (["a", "b", "a "], r"a \(numbers 1, 3\)"),
        ("[sky,road (paved, gray)]", "double quotes"),
        ("names.csv", "txt"),
        ("catseg/ade20k", "catseg/ade20k_847"),
        ("sky; road; car", "commas"),
    ],
)
def test_names_that_are_none(given: Any, message: str) -> None:
    with pytest.raises(UserError, match=message):
        class_list(given, KNOWN)


def test_a_single_string_in_a_config_lacks_a_comma() -> None:
    with pytest.raises(UserError, match="comma"):
        class_list("water", KNOWN, in_config=True)
    assert class_list("voc", KNOWN, in_config=True) == ["aeroplane", "bicycle"]
    assert class_list("water, land", KNOWN, in_config=True) == ["water", "land"]


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("sky\nroad, paved | way\n\n", ["sky", "road | paved | way"]),
        ('sky\n"road, paved", way', ["sky", "road, paved | way"]),
        ("0: sky\n1: road, way", ["sky", "road | way"]),
        ("\ufeffsky\r\nroad", ["sky", "road"]),
        ("# my classes\nsky\nroad", ["sky", "road"]),
        ("0,sky\n1,road", ["sky", "road"]),
        ("sky\t0\nroad\t1", ["sky", "road"]),
        ("18 wheeler\nroad", ["18 wheeler", "road"]),
        ('sky, "road, paved"', ["sky", "road, paved"]),
        ('"1 euro"\n"2 euro"', ["1 euro", "2 euro"]),
    ],
)
def test_names_in_a_file(tmp_path: Path, text: str, names: list[str]) -> None:
    file = tmp_path / "names.txt"
    file.write_text(text, encoding="utf-8")
    assert class_list(str(file)) == class_list(file) == names


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "no class name"),
        ("sky\nroad\n# again\nsky", "lines 1, 4"),
        ("1: sky\n2: road", "line 1"),
        ("0 sky\n2 road", "line 2"),
        ("sky\t1\nroad\t2", "line 1"),
        ("64 128 64\tanimal\nbus", "line 1"),
    ],
)
def test_lines_that_are_no_names(tmp_path: Path, text: str, message: str) -> None:
    file = tmp_path / "names.txt"
    file.write_text(text)
    with pytest.raises(UserError, match=message):
        class_list(file)


def nearest(palette: list[list[int]]) -> float:
    return min(float(np.linalg.norm(np.subtract(a, b))) for a, b in combinations(palette, 2))


def test_colors_follow_the_name() -> None:
    first = dict(zip("abcdef", palette_for(list("abcdef"))))
    assert palette_for(["e", "zebra", "b"])[::2] == [first["e"], first["b"]]
    assert palette_for(["Potted_Plants "]) == palette_for(["potted plants"])


def test_colors_of_known_things() -> None:
    sky, trees, street = palette_for(["sky", "Trees", "street"])
    assert max(sky) == sky[2] and max(trees) == trees[1] and np.ptp(street) < 20
    names = {color: name for name, color in COLORS.items()}
    assert palette_for(list(names.values())) == [list(color) for color in names]
    assert nearest([list(color) for color in names]) >= FAR_ENOUGH_KNOWN
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
