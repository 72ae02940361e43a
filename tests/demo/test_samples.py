"""What the page shows: sample images, and views of one result."""

from __future__ import annotations

import base64
import io
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mmseg_otseg.datasets.shapes import SHAPES_PALETTE, render_scene
from mmseg_otseg.demo import views
from mmseg_otseg.demo.samples import (
    LONGER_SIDE,
    build_dataset,
    load_image,
    samples_for,
    samples_with_unseen,
    take_sample,
)
from mmseg_otseg.inference import Inspection, OTSegInferencer
from mmseg_otseg.structures import ClassSplit
from tests.helpers.shapes_run import tiny_config


def test_samples_are_images_of_the_data(tmp_path: Path) -> None:
    cfg = tiny_config("otseg", tmp_path)
    dataset = build_dataset(cfg)
    for index in (2, 0):
        sample = take_sample(dataset, index)
        scene = render_scene(**dataset.get_data_info(index)["scene"])
        assert np.array_equal(sample.image[..., ::-1], scene.image)
        assert np.array_equal(sample.label, scene.labels)


def test_samples_with_unseen_classes_come_first(tmp_path: Path) -> None:
    cfg = tiny_config("otseg", tmp_path)
    split = ClassSplit.build(dict(cfg.model.split, unseen=["green triangle"]))
    dataset = build_dataset(cfg)
    every = [take_sample(dataset, index) for index in range(len(dataset))]
    holds = [np.isin(sample.label, split.unseen).any() for sample in every]
    assert 0 < sum(holds) < len(every)
    found = samples_with_unseen(dataset, split, len(every))
    order = [index for index, has in enumerate(holds) if has]
    order += [index for index, has in enumerate(holds) if not has]
    for sample, index in zip(found, order, strict=True):
        assert np.array_equal(sample.image, every[index].image)
    assert len(samples_with_unseen(dataset, split, 1)) == 1


def test_large_images_are_reduced(tmp_path: Path) -> None:
    Image.new("RGB", (3 * LONGER_SIDE, 300), (9, 8, 7)).save(tmp_path / "wide.png")
    assert load_image(tmp_path / "wide.png").shape == (100, LONGER_SIDE, 3)
    Image.new("RGBA", (30, 20), (9, 8, 7, 6)).save(tmp_path / "small.png")
    small = load_image(tmp_path / "small.png")
    assert small.shape == (20, 30, 3) and small[0, 0].tolist() == [7, 8, 9]


def test_samples_are_of_the_files_or_of_the_data(tmp_path: Path) -> None:
    inferencer = OTSegInferencer(tiny_config("otseg_plus", tmp_path), device="cpu")
    samples = samples_for(inferencer, [])
    assert 0 < len(samples) <= 8 and all(image.ndim == 3 for image in samples)
    assert inferencer.inspect(samples[0]).palette == [list(color) for color in SHAPES_PALETTE]
    (tmp_path / "photos").mkdir()
    for name, width in (("b", 30), ("a", 20)):
        Image.new("RGB", (width, 10)).save(tmp_path / "photos" / f"{name}.png")
    (tmp_path / "photos" / "broken.png").touch()
    found = samples_for(inferencer, [str(tmp_path / "photos")])
    assert [image.shape[1] for image in found] == [20, 30]
    inferencer.cfg.test_dataloader = None
    assert samples_for(inferencer, []) == []


@pytest.fixture
def look() -> Inspection:
    """Two classes: the left half of the image is of the first, the right half of the other."""
    values = np.zeros((2, 8, 16), np.float32)
    values[0, :, :8] = values[1, :, 8:] = 0.5
    plan = np.zeros((2, 2, 2, 4), np.float32)
    plan[:, 0, :, :2] = plan[:, 1, :, 2:] = 1 / 8  # the first prompt takes the left half
    return Inspection(
        image=np.full((32, 64, 3), 128, np.uint8),
        size=(32, 64),
        names=("cat", "<b>dog"),
        palette=[[255, 0, 0], [0, 0, 255]],
        seen=np.array([True, False]),
        seen_bias=0.1,
        values=values,
        prompts=("a photo of a {}.", "a part of a {}."),
        align_corners=False,
        plan=lambda: plan,
    )


def numbers(html: str) -> list[str]:
    return re.findall(r'class="number">([^<]+)<', html)


def test_the_legend_has_every_class_and_its_share(look: Inspection) -> None:
    labels = np.zeros((10, 10), np.uint8)
    labels[:, 9] = 1
    html = views.legend(look, labels)
    assert numbers(html) == ["90.0%", "10.0%"]
    assert html.count("no masks in training</span>") == 1
    assert "<b>" not in html and "&lt;b&gt;dog" in html
    labels[:, :9] = 2
    html = views.legend(look, labels)
    assert numbers(html) == ["90.0%", "10.0%"]
    assert html.index("none of these") < html.index("dog") and "cat" not in html


def test_the_overlay_follows_the_sliders(look: Inspection) -> None:
    def colors(**options: float) -> list[str]:
        shown = views.overlay(look, **{**dict(seen_bias=0.0, none_below=0, opacity=1.0), **options})
        assert shown.shape == (384, 768, 3)
        pixels = shown[20, [20, 747]].astype(int)
        return [
            "red" if p[0] > p[2] + 20 else "blue" if p[2] > p[0] + 20 else "gray" for p in pixels
        ]

    assert colors() == ["red", "blue"]
    assert colors(seen_bias=0.6) == ["blue", "blue"]
    assert colors(none_below=0.6) == colors(opacity=0) == ["gray", "gray"]


@pytest.mark.parametrize(("row", "column", "best", "taker"), [(0, 1, "cat", 0), (31, 63, "dog", 1)])
def test_a_place_tells_its_class_and_who_takes_it(
    row: int, column: int, best: str, taker: int, look: Inspection
) -> None:
    html = views.best_at(look, row, column, seen_bias=0.1)
    assert re.findall(r'class="name">(?:&lt;b&gt;)?(\w+)', html)[0] == best
    assert numbers(html) == (["0.400", "0.000"] if best == "cat" else ["0.500", "-0.100"])
    maps = views.prompt_maps(look, row, column, 1)
    first, second = ("100.0%", "0.0%") if taker == 0 else ("0.0%", "100.0%")
    texts = [f"a photo of a &lt;b&gt;dog. {first}", f"a part of a &lt;b&gt;dog. {second}"]
    assert re.findall("<figcaption>(.*?)</figcaption>", maps) == texts
    source = re.findall('base64,([^"]+)', maps)[taker]
    drawn = np.asarray(Image.open(io.BytesIO(base64.b64decode(source))), int)
    width = drawn.shape[1] // 8
    assert (drawn[:, :width].sum() > drawn[:, -width:].sum()) == (taker == 0)
