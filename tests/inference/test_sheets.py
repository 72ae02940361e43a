from __future__ import annotations

import numpy as np
import pytest
from matplotlib.figure import Figure

from mmseg_otseg.inference import Inspection
from mmseg_otseg.inference.sheets import Row, plan_sheet, segmentation_sheet

NAMES, PALETTE = ("cat", "dog", "sofa"), [[255, 0, 0], [0, 255, 0], [0, 0, 255]]


def texts(figure: Figure) -> list[str]:
    figure.canvas.draw()
    own = [text.get_text() for axes in figure.axes for text in (*axes.texts, axes.title)]
    legend = [text.get_text() for box in figure.legends for text in box.get_texts()]
    return [text for text in own + legend if text]


def test_unseen_classes_are_counted_under_each_prediction() -> None:
    truth = np.full((10, 10), 255, np.uint8)
    truth[:4], truth[4:6] = 2, 0
    half = np.where(np.arange(10) < 5, 2, 0)[None].repeat(10, 0).astype(np.uint8)
    row = Row(np.zeros((10, 10, 3), np.uint8), truth, {"one": half, "two": truth})
    shown = texts(segmentation_sheet([row], NAMES, PALETTE, [1, 2]))
    # 20 of the 40 pixels, and 10 of the 20 that are cat, are called sofa: 20 / (40 + 10).
    assert "IoU: sofa 40" in shown and "IoU: sofa 100" in shown
    assert {"image", "truth", "one", "two", "cat", "sofa (unseen)"} <= set(shown)
    assert not any("dog" in text for text in shown)


def look_with(plan: np.ndarray | None) -> Inspection:
    return Inspection(
        image=np.zeros((8, 12, 3), np.uint8),
        size=(8, 12),
        names=NAMES,
        palette=PALETTE,
        seen=np.array([True, True, False]),
        seen_bias=0.1,
        values=np.random.default_rng(0).random((3, 8, 12), np.float32),
        prompts=("a photo of a {}.", "a part of a {}."),
        align_corners=False,
        plan=lambda: plan,
    )


def test_every_prompt_has_a_map_over_its_own_range() -> None:
    plan = np.zeros((3, 2, 2, 3), np.float32)
    plan[:, 0, 0], plan[:, 1, 1] = 1 / 6, 1 / 6  # one takes the upper row, one the lower
    figure = plan_sheet([look_with(plan)], [[0, 2]], [None])
    shown = texts(figure)
    assert {"cat", "sofa\n(unseen)"} <= set(shown)
    assert shown.count("a part of a {}.\n0% to 100%") == 2
    most, upper, lower = (axes.images[0].get_array() for axes in figure.axes[1:4])
    assert most[0, 0, 2] > most[0, 0, 0] and most[-1, 0, 2] < most[-1, 0, 0]  # blue, then red
    assert upper[0].sum() > upper[-1].sum() and lower[0].sum() < lower[-1].sum()


def test_classes_are_outlined_where_the_truth_has_them() -> None:
    truth = np.full((8, 12), 255, np.uint8)
    truth[2:6, :6] = 2
    plan = np.full((3, 2, 2, 3), 1 / 12, np.float32)
    figure = plan_sheet([look_with(plan)], [[2]], [truth])
    image, drawn = figure.axes[0], figure.axes[0].images[0].get_array()
    rows = np.concatenate(
        [path.vertices[:, 1] for c in image.collections for path in c.get_paths()]
    )
    assert np.ptp(rows) / len(drawn) == pytest.approx(0.5, abs=0.02)
