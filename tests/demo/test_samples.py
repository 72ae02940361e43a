from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from mmseg_otseg.datasets.shapes import render_scene
from mmseg_otseg.demo.samples import build_dataset, samples_with_unseen, take_samples
from mmseg_otseg.structures import ClassSplit
from tests.helpers.shapes_run import tiny_config


def test_samples_are_images_of_the_data(tmp_path: Path) -> None:
    cfg = tiny_config("otseg", tmp_path)
    split = ClassSplit.build(cfg.model.split)
    dataset = build_dataset(cfg, split)
    samples = take_samples(dataset, [2, 0])
    for sample, index in zip(samples, (2, 0)):
        scene = render_scene(**dataset.get_data_info(index)["scene"])
        assert np.array_equal(sample.image[..., ::-1], scene.image)
        assert np.array_equal(sample.label, scene.labels)
        assert sample.name.endswith(f"{index:06d}")
    with pytest.raises(ValueError, match="0 to 5"):
        take_samples(dataset, [-1])


def test_samples_with_unseen_classes_come_first(tmp_path: Path) -> None:
    cfg = tiny_config("otseg", tmp_path)
    split = ClassSplit.build(dict(cfg.model.split, unseen=["green triangle"]))
    dataset = build_dataset(cfg, split)
    every = take_samples(dataset, range(len(dataset)))
    holds = [np.isin(sample.label, split.unseen).any() for sample in every]
    assert 0 < sum(holds) < len(every)
    found = samples_with_unseen(dataset, split, len(every))
    names = [sample.name for sample in found]
    assert names[: sum(holds)] == [s.name for s, has in zip(every, holds) if has]
    assert sorted(names) == sorted(sample.name for sample in every)
    assert len(samples_with_unseen(dataset, split, 1)) == 1
