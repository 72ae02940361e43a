"""What CLIP says of names and regions, with the tiny CLIP that knows shapes and colors."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmseg.registry import MODELS
from torch import Tensor

from mmseg_otseg.checks.names import order_findings, read_names, region_findings
from mmseg_otseg.datasets.shapes import SHAPES_CLASSES, render_scene
from tests.helpers.paths import ROOT

NAMES = list(SHAPES_CLASSES)


@pytest.fixture(scope="module")
def clip() -> dict[str, Any]:
    return Config.fromfile(ROOT / "configs/shapes/clip/shapes_clip.py").clip


@pytest.fixture(scope="module")
def crops() -> dict[int, list[Tensor]]:
    """Some regions of each class."""
    found: dict[int, list[Tensor]] = {label: [] for label in range(len(NAMES))}
    for index in range(80):
        scene = render_scene("val", index)
        for label in set(np.unique(scene.labels)) - {255}:
            rows, columns = np.nonzero(scene.labels == label)
            box = slice(rows.min(), rows.max() + 1), slice(columns.min(), columns.max() + 1)
            if len(rows) > 60 and len(found[label]) < 4:
                image = np.ascontiguousarray(scene.image[box][..., ::-1])
                found[label].append(torch.from_numpy(image).permute(2, 0, 1))
    return found


def judged(clip: dict, crops: dict, names: Sequence[str]) -> list:
    config = Config.fromfile(ROOT / "configs/shapes/otseg.py").model.data_preprocessor
    embeddings = read_names(clip, names).embeddings
    return region_findings(clip, MODELS.build(config), crops, names, embeddings)


@pytest.mark.parametrize(
    "names",
    [
        NAMES[10:] + NAMES[:10],
        NAMES[::-1],
        sorted(NAMES),
        [*NAMES[:10], *NAMES[11:], NAMES[10]],
    ],
)
def test_a_list_in_another_order(clip: dict, crops: dict, names: list[str]) -> None:
    (finding,) = judged(clip, crops, names)
    assert finding.level == "error"
    moved = [index for index, name in enumerate(NAMES) if names[index] != name]
    assert all(f"{index} {NAMES[index]}" in finding.text for index in moved)


def test_two_names_exchanged(clip: dict, crops: dict) -> None:
    names = NAMES.copy()
    names[2], names[9] = names[9], names[2]
    (finding,) = judged(clip, crops, names)
    assert finding.level == "warning" and "swapped" in finding.text
    assert names[2] in finding.text and names[9] in finding.text


@pytest.mark.parametrize(("number", "knowledge"), [(4, 0), (20, 0), (20, 2)])
def test_a_clip_that_knows_little_accuses_nobody(number: int, knowledge: int) -> None:
    random = np.random.default_rng(0)
    for _ in range(40):
        fit = random.standard_normal((number, number)) + knowledge * np.eye(number)
        found = order_findings(fit, list(range(number)), NAMES[:number])
        assert all(finding.level != "error" for finding in found)


def test_names_that_read_alike(clip: dict) -> None:
    (finding,) = read_names(clip, [*NAMES, "Red  Circle"]).findings
    assert finding.level == "warning" and "red circle, Red  Circle" in finding.text
    random = dict(clip, pretrained=None)  # knows no language
    assert not read_names(random, ["car", "cars", "road"]).findings


def test_names_that_do_not_fit(clip: dict) -> None:
    long = " ".join(["very"] * 30 + ["red circle"])
    with pytest.raises(ValueError, match=r"very .* 32 "):
        read_names(clip, [*NAMES, long])
