"""What CLIP says of names and regions, with the tiny CLIP that knows shapes and colors."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from mmengine.config import Config

from mmseg_otseg.checks.names import NameReader, order_findings
from mmseg_otseg.datasets.shapes import SHAPES_CLASSES, render_scene
from tests.helpers.paths import ROOT

NAMES = list(SHAPES_CLASSES)


@pytest.fixture(scope="module")
def reader() -> NameReader:
    return NameReader(Config.fromfile(ROOT / "configs/shapes/clip/shapes_clip.py").clip)


@pytest.fixture(scope="module")
def crops() -> dict[int, list[np.ndarray]]:
    """Some regions of each class."""
    found: dict[int, list[np.ndarray]] = {label: [] for label in range(len(NAMES))}
    for index in range(80):
        scene = render_scene("val", index)
        for label in set(np.unique(scene.labels)) - {255}:
            rows, columns = np.nonzero(scene.labels == label)
            box = slice(rows.min(), rows.max() + 1), slice(columns.min(), columns.max() + 1)
            if len(rows) > 60 and len(found[label]) < 4:
                found[label].append(np.ascontiguousarray(scene.image[box]))
    return found


def judged(reader: NameReader, crops: dict, names: Sequence[str]) -> list:
    return reader.names_of_regions(crops, names, reader.read(names).embeddings)


@pytest.mark.parametrize(
    ("names", "words"),
    [
        (NAMES[-2:] + NAMES[:-2], "2 place"),
        (NAMES[10:] + NAMES[:10], "10 place"),
        (NAMES[::-1], "in reverse"),
        (sorted(NAMES), "another order"),
        ([*NAMES[:10], *NAMES[11:], NAMES[10]], "another order"),
    ],
)
def test_a_list_in_another_order(
    reader: NameReader, crops: dict, names: list[str], words: str
) -> None:
    (finding,) = judged(reader, crops, names)
    assert finding.level == "error" and words in finding.text
    moved = [index for index, name in enumerate(NAMES) if names[index] != name]
    assert all(f"{index} {NAMES[index]}" in finding.text for index in moved)


def test_two_names_exchanged(reader: NameReader, crops: dict) -> None:
    names = NAMES.copy()
    names[2], names[9] = names[9], names[2]
    (finding,) = judged(reader, crops, names)
    assert finding.level == "warning" and "swapped" in finding.text
    assert names[2] in finding.text and names[9] in finding.text


@pytest.mark.parametrize(("number", "knowledge"), [(4, 0), (20, 0), (20, 2)])
def test_a_clip_that_knows_little_accuses_nobody(number: int, knowledge: int) -> None:
    random = np.random.default_rng(0)
    for _ in range(40):
        fit = random.standard_normal((number, number)) + knowledge * np.eye(number)
        found = order_findings(fit, list(range(number)), NAMES[:number])
        assert all(finding.level != "error" for finding in found)


def test_names_that_read_alike(reader: NameReader) -> None:
    (finding,) = reader.read([*NAMES, "Red  Circle"]).findings
    assert finding.level == "warning"
    assert "'red circle' and 'Red  Circle'" in finding.text and "2 of 21 names" in finding.text
    assert not reader.read(["red circle | Red  Circle", *NAMES[1:]]).findings  # of one class


def test_names_that_do_not_fit(reader: NameReader) -> None:
    long = " ".join(["very"] * 30 + ["red circle"])
    with pytest.raises(ValueError, match=r"very .* 32 "):
        reader.read([*NAMES, long])


def test_a_random_clip_is_not_asked_for_its_opinion() -> None:
    config = Config.fromfile(ROOT / "configs/shapes/clip/shapes_clip.py").clip
    reader = NameReader(dict(model=config.model, pretrained=None))
    assert not reader.trained
    assert reader.read(["car", "cars", "road"]).findings == []
