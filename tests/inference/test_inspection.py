from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from mmengine.config import Config

from mmseg_otseg.inference import OTSegInferencer, set_classes
from tests.helpers.shapes_run import tiny_config


@pytest.fixture
def inferencer(config: Config, weights: str) -> OTSegInferencer:
    return OTSegInferencer(config, weights, device="cpu")


def test_the_labels_are_those_of_segment(inferencer: OTSegInferencer, images: Path) -> None:
    path = images / "0.jpg"
    for classes, none_below in ((None, None), ("cat, sofa, zebra", 0.3)):
        look = inferencer.inspect(path, classes)
        expected = inferencer(path, classes, none_below=none_below)
        assert np.array_equal(look.labels(none_below=none_below), expected["predictions"][0])
    assert look.names == ("cat", "sofa", "zebra") and look.seen.tolist() == [True, False, False]


def test_the_bias_lowers_the_seen_classes(
    inferencer: OTSegInferencer, config: Config, weights: str, images: Path
) -> None:
    look = inferencer.inspect(images / "0.jpg", "cat, sofa")
    config.model.decode_head.seen_bias = 0.0
    plain = OTSegInferencer(config, weights, device="cpu")
    expected = plain(images / "0.jpg", "cat, sofa")["predictions"][0]
    assert look.seen_bias > 0 and np.array_equal(look.labels(0.0), expected)
    assert look.labels(1.0).all() and not look.labels(-1.0).any()


def test_names_are_encoded_once(
    inferencer: OTSegInferencer, images: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text, calls = type(inferencer.model.neck.text), []
    encode = text.set_classes
    monkeypatch.setattr(text, "set_classes", lambda *args: (calls.append(args), encode(*args)))
    split = {"classes": ["cat", "sofa"], "unseen": ["cat"]}
    for _ in range(3):
        for classes in ("cat, sofa", ["dog"], split):
            inferencer.inspect(images / "2.jpg", classes)
    assert len(calls) == 3
    set_classes(inferencer.model, ["dog"])
    inferencer.inspect(images / "2.jpg", "cat, sofa")
    assert len(calls) == 5  # those made from the other vocabulary do not count


def test_images_of_the_shapes_configs(tmp_path: Path) -> None:
    """Their pipeline draws scenes; images of any size come in too, at the scenes' size."""
    cfg = tiny_config("otseg_plus", tmp_path)
    look = OTSegInferencer(cfg, device="cpu").inspect(np.zeros((300, 600, 3), np.uint8))
    height, width = look.values.shape[1:]
    assert look.labels().shape == (300, 600) and width == 2 * height
    assert width == cfg.test_dataloader.dataset.dataset.get("size", 64)
