from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image

from mmseg_otseg.datasets.shapes import SHAPES_PALETTE
from mmseg_otseg.demo.images import (
    LONGER_SIDE,
    load_image,
    read_names,
    samples_for,
    write_names,
)
from mmseg_otseg.inference import OTSegInferencer
from tests.helpers.claimed_size import png_of
from tests.helpers.shapes_run import tiny_config


def test_large_images_are_reduced(tmp_path: Path) -> None:
    Image.new("RGB", (3 * LONGER_SIDE, 300), (9, 8, 7)).save(tmp_path / "wide.png")
    assert load_image(tmp_path / "wide.png").shape == (100, LONGER_SIDE, 3)
    Image.new("RGBA", (30, 20), (9, 8, 7, 6)).save(tmp_path / "small.png")
    small = load_image(tmp_path / "small.png")
    assert small.shape == (20, 30, 3) and small[0, 0].tolist() == [7, 8, 9]


@pytest.mark.parametrize("kind", ["text", "cut", "huge", "folder", "none"])
def test_images_that_cannot_be_used(kind: str, tmp_path: Path) -> None:
    file = tmp_path / "image.png"
    if kind == "text":
        file.write_text("not an image")
    elif kind == "folder":
        file.mkdir()
    elif kind != "none":
        Image.new("RGB", (40, 30)).save(file)
        if kind == "cut":
            file.write_bytes(file.read_bytes()[:60])
        else:
            file.write_bytes(png_of(20_000, 20_000))
    with pytest.raises(ValueError, match="This image"):
        load_image(file)


def test_names() -> None:
    assert read_names("cat,\n sofa ") == ["cat", "sofa"]
    assert read_names(" \n ") is None
    for names in (["cat", "chair, wooden"], ["zebra"]):
        assert read_names(write_names(names)) == names
    with pytest.raises(ValueError, match=r" 201 .* 200"):
        read_names(",".join(map(str, range(201))))


def test_samples_are_of_the_files_or_of_the_data(tmp_path: Path) -> None:
    inferencer = OTSegInferencer(tiny_config("otseg_plus", tmp_path), device="cpu")
    samples = samples_for(inferencer, [])
    assert 0 < len(samples) <= 8 and all(image.ndim == 3 for _, image in samples)
    assert inferencer.inspect(samples[0][1]).palette == [list(color) for color in SHAPES_PALETTE]
    (tmp_path / "photos").mkdir()
    for name in "ba":
        Image.new("RGB", (30, 20)).save(tmp_path / "photos" / f"{name}.png")
    assert [name for name, _ in samples_for(inferencer, [str(tmp_path / "photos")])] == ["a", "b"]
    inferencer.cfg.test_dataloader = None
    assert samples_for(inferencer, []) == []
