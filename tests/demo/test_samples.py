from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from mmseg_otseg.datasets.shapes import SHAPES_PALETTE, render_scene
from mmseg_otseg.demo.samples import (
    LONGER_SIDE,
    build_dataset,
    load_image,
    samples_for,
    samples_with_unseen,
    take_samples,
)
from mmseg_otseg.inference import OTSegInferencer
from mmseg_otseg.structures import ClassSplit
from tests.helpers.shapes_run import tiny_config


def test_samples_are_images_of_the_data(tmp_path: Path) -> None:
    cfg = tiny_config("otseg", tmp_path)
    dataset = build_dataset(cfg)
    samples = take_samples(dataset, [2, 0])
    for sample, index in zip(samples, (2, 0)):
        scene = render_scene(**dataset.get_data_info(index)["scene"])
        assert np.array_equal(sample.image[..., ::-1], scene.image)
        assert np.array_equal(sample.label, scene.labels)
        assert sample.name.endswith(f"{index:06d}")


def test_samples_with_unseen_classes_come_first(tmp_path: Path) -> None:
    cfg = tiny_config("otseg", tmp_path)
    split = ClassSplit.build(dict(cfg.model.split, unseen=["green triangle"]))
    dataset = build_dataset(cfg)
    every = take_samples(dataset, range(len(dataset)))
    holds = [np.isin(sample.label, split.unseen).any() for sample in every]
    assert 0 < sum(holds) < len(every)
    found = samples_with_unseen(dataset, split, len(every))
    names = [sample.name for sample in found]
    assert names[: sum(holds)] == [s.name for s, has in zip(every, holds) if has]
    assert sorted(names) == sorted(sample.name for sample in every)
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
    assert 0 < len(samples) <= 8 and all(image.ndim == 3 for _, image in samples)
    assert inferencer.inspect(samples[0][1]).palette == [list(color) for color in SHAPES_PALETTE]
    (tmp_path / "photos").mkdir()
    for name in "ba":
        Image.new("RGB", (30, 20)).save(tmp_path / "photos" / f"{name}.png")
    assert [name for name, _ in samples_for(inferencer, [str(tmp_path / "photos")])] == ["a", "b"]
    inferencer.cfg.test_dataloader = None
    assert samples_for(inferencer, []) == []
