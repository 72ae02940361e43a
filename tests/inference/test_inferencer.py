"""Images in, masks and what is behind them out; from Python and by mmseg's own tools."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from mmengine.config import Config
from mmseg.apis import MMSegInferencer, inference_model, init_model
from PIL import Image

from mmseg_otseg.inference import OTSegInferencer, set_classes
from mmseg_otseg.models.text import OTSEG_6
from tests.helpers.shapes_run import tiny_config


@pytest.fixture
def inferencer(config: Config, weights: str) -> OTSegInferencer:
    return OTSegInferencer(config, weights, device="cpu")


def files(folder: Path) -> list[str]:
    return sorted(str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file())


def test_folder_with_a_broken_image(
    inferencer: OTSegInferencer, images: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    result = inferencer(images, classes=["cat", "zebra"], out_dir=out, return_vis=True)
    first, second, broken, third = result["predictions"]
    assert broken is None and result["visualization"][2] is None
    assert [mask.shape for mask in (first, second, third)] == [(64, 80), (70, 64), (64, 64)]
    assert result["classes"] == ("cat", "zebra")
    assert result["names"] == [str(images / f"{name}.jpg") for name in ("0", "1", "1b", "2")]
    assert result["skipped"] == [str(images / "1b.jpg")]
    written = [f"pred/{i}.png" for i in range(3)] + [f"vis/{i}.jpg" for i in range(3)]
    assert files(out) == sorted(["classes.json", "summary.csv", *written])
    assert np.array_equal(Image.open(out / "pred" / "1.png"), second)
    painted = cv2.imread(str(out / "vis" / "1.jpg"))[..., ::-1]
    assert np.abs(painted - result["visualization"][1].astype(int)).mean() < 20


def test_images_may_be_arrays(inferencer: OTSegInferencer, images: Path) -> None:
    path = images / "0.jpg"
    one = inferencer(path)["predictions"]
    array = cv2.imread(str(path))
    alpha, gray = np.dstack([array, array[..., 0]]), array[..., 1]
    masks = inferencer([array, alpha, gray, np.dstack([gray] * 3), np.zeros(3)])
    assert [mask is None for mask in masks["predictions"]] == [False] * 4 + [True]
    assert masks["skipped"] == ["array 4"]
    # OpenCV and Pillow may decode a JPEG to values that differ by one.
    assert (masks["predictions"][0] == one[0]).mean() > 0.95
    assert np.array_equal(masks["predictions"][1], masks["predictions"][0])
    assert np.array_equal(masks["predictions"][3], masks["predictions"][2])


def test_names_of_a_call_are_not_kept(inferencer: OTSegInferencer, images: Path) -> None:
    path, own = images / "0.jpg", inferencer.model.neck.text.split.classes
    before = inferencer(path)
    assert before["classes"] == own
    for classes in ("cat, sofa", ["cat", "sofa"], {"classes": ["cat", "sofa"]}):
        assert inferencer(path, classes=classes)["classes"] == ("cat", "sofa")
    assert inferencer(path, classes="voc")["classes"] == own
    after = inferencer(path)
    assert after["classes"] == own
    assert np.array_equal(after["predictions"][0], before["predictions"][0])


def test_the_threshold_of_the_config(inferencer: OTSegInferencer, images: Path) -> None:
    path, count = images / "0.jpg", len(inferencer.model.neck.text.split.classes)
    limit = float(np.median(inferencer.inspect(path).biased().max(0)))
    asked = inferencer(path, none_below=limit)["predictions"][0]
    assert 0 < (asked == count).sum() < asked.size
    inferencer.model.test_cfg.none_below = limit
    assert np.array_equal(inferencer(path)["predictions"][0], asked)


def test_wrong_inputs(inferencer: OTSegInferencer, images: Path, tmp_path: Path) -> None:
    (images / "empty").mkdir()
    image, out = images / "0.jpg", tmp_path / "out"
    wrong: list[tuple[Any, dict[str, Any], str]] = [
        (images / "gone.jpg", {}, r"gone\.jpg"),
        ([], {}, r"\[\]"),
        ([3], {}, "int"),
        (images / "empty", {}, "empty "),
        (image, {"classes": ["a", "a"]}, "numbers 1, 2"),
        (image, {"none_below": 90}, "none_below"),
    ]
    for inputs, options, message in wrong:
        with pytest.raises(ValueError, match=message):
            inferencer(inputs, out_dir=out, **options)
    assert not out.exists()


def test_damaged_weights_are_no_masks(inferencer: OTSegInferencer, images: Path) -> None:
    for parameter in inferencer.model.neck.descriptor.parameters():
        parameter.data.fill_(float("nan"))
    with pytest.raises(ValueError, match="finite"):
        inferencer(images / "0.jpg")


def test_mmsegs_own_tools(config: Config, weights: str, images: Path, tmp_path: Path) -> None:
    path = str(tmp_path / "x.png")
    Image.open(images / "0.jpg").save(path)
    config.dump(str(tmp_path / "config.py"))
    stock = MMSegInferencer(str(tmp_path / "config.py"), weights, device="cpu")
    expected = OTSegInferencer(config, weights, device="cpu")(path)["predictions"][0]
    assert np.array_equal(stock(path)["predictions"], expected)
    model = init_model(config, weights, device="cpu")
    assert np.array_equal(inference_model(model, path).pred_sem_seg.data[0].numpy(), expected)


@pytest.mark.parametrize("wrap", [None, "ConcatDataset", "test_pipeline"])
def test_finds_the_pipeline(wrap: str | None, config: Config, weights: str, images: Path) -> None:
    expected = OTSegInferencer(config, weights, device="cpu")(images / "0.jpg")["predictions"]
    dataset = config.test_dataloader.dataset
    steps = dataset.pop("pipeline")
    if wrap is None:  # as the wrapper stands in a config of mmseg
        dataset.dataset.pipeline = steps
    elif wrap == "ConcatDataset":
        dataset.dataset = dict(type=wrap, datasets=[dict(dataset.dataset, pipeline=steps)])
    else:
        config.test_dataloader = config.val_dataloader = None
        config.test_pipeline = steps
    found = OTSegInferencer(config, weights, device="cpu")(images / "0.jpg")["predictions"]
    assert np.array_equal(found[0], expected[0])


def test_the_labels_are_those_of_segment(inferencer: OTSegInferencer, images: Path) -> None:
    path = images / "0.jpg"
    for classes, none_below in ((None, None), ("cat, sofa, zebra", 0.3)):
        look = inferencer.inspect(path, classes)
        expected = inferencer(path, classes, none_below=none_below)
        assert np.array_equal(look.labels(none_below=none_below), expected["predictions"][0])
    assert look.names == ("cat", "sofa", "zebra") and look.seen.tolist() == [True, False, False]
    assert look.prompts == tuple(OTSEG_6)


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
