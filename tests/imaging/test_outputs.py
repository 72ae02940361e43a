from __future__ import annotations

import csv
import errno
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mmseg_otseg.errors import UserError
from mmseg_otseg.imaging import NONE_COLOR, OutputFolder, class_list
from mmseg_otseg.imaging.outputs import output_names, save_image


@pytest.mark.parametrize(
    ("paths", "names"),
    [
        (["a/x.jpg"], ["x"]),
        (["a/x.jpg", "a/y.png", "./a/x.jpg"], ["x", "y", "x"]),
        (["a/x.jpg", "b/x.jpg", "c/x.jpg", "a/x.png"], ["a/x.jpg", "b/x", "c/x", "a/x.png"]),
        (["x.jpg", "x.png", "x.jpg.bmp", "y.gif"], ["x.jpg", "x.png", "x.jpg.bmp", "y"]),
        ([], []),
    ],
)
def test_names(paths: list[str], names: list[str]) -> None:
    assert output_names(paths) == names


NAMES, PALETTE = ["road", "a, b"], [[1, 2, 3], [4, 5, 6]]


def test_masks_have_a_key(tmp_path: Path) -> None:
    labels = np.array([[0, 1, 1, 2]], np.uint8)
    images = ["a/x.jpg", "b/x.jpg"]
    with OutputFolder(tmp_path, images, NAMES, PALETTE, {"refine": True}) as out:
        file = out.save("b/x.jpg", labels, np.zeros((4, 5, 3), np.uint8))
        assert file == tmp_path / "pred" / "b" / "x.png"
    mask = Image.open(file)
    assert mask.mode == "P" and np.array_equal(mask, labels)
    assert np.asarray(mask.convert("RGB"))[0].tolist() == [*PALETTE, PALETTE[1], [*NONE_COLOR]]
    files = sorted(str(p.relative_to(tmp_path)) for p in tmp_path.rglob("*") if p.is_file())
    assert files == ["classes.json", "pred/b/x.png", "summary.csv", "vis/b/x.jpg"]
    key = json.loads((tmp_path / "classes.json").read_text())
    assert key["refine"] and key["classes"][1] == dict(index=1, name="a, b", color=[4, 5, 6])


def test_shares_of_the_same_classes_stay(tmp_path: Path) -> None:
    def segment(images: list[str], names: list[str]) -> list[list[str]]:
        with OutputFolder(tmp_path, images, names, PALETTE) as out:
            for image in images:
                out.save(image, np.array([[0, 1, 1, 2]], np.uint8))
        with (tmp_path / "summary.csv").open(newline="") as file:
            return list(csv.reader(file))

    shares = ["0.250000", "0.500000", "0.250000"]
    segment(["x.jpg", "y.jpg"], NAMES)
    rows = segment(["y.jpg", "z.jpg"], NAMES)
    assert rows == [["image", *NAMES, "none of these"], *([name, *shares] for name in "xyz")]
    assert [row[0] for row in segment(["y.jpg"], ["other", "names"])] == ["image", "y"]


def test_coco_gives_back_the_mask(tmp_path: Path) -> None:
    coco = pytest.importorskip("pycocotools.coco")
    rng = np.random.default_rng(0)
    masks = {f"{name}.jpg": rng.integers(0, 3, (7, 9)).astype(np.uint8) for name in "xy"}
    with OutputFolder(tmp_path, [*masks], NAMES, PALETTE, coco=True) as out:
        for image, mask in masks.items():
            out.save(image, mask)
    read = coco.COCO(tmp_path / "annotations.json")
    assert [entry["name"] for entry in read.loadCats(read.getCatIds())] == NAMES
    for image in read.loadImgs(read.getImgIds()):
        found = np.full((7, 9), 2)
        for annotation in read.loadAnns(read.getAnnIds(image["id"])):
            found[read.annToMask(annotation) > 0] = annotation["category_id"] - 1
        assert np.array_equal(found, masks[image["file_name"]])


def test_data_to_train_with(tmp_path: Path) -> None:
    Image.new("RGB", (3, 2), (9, 8, 7)).save(tmp_path / "x.png")
    images = [str(tmp_path / "x.png"), np.zeros((2, 3, 3), np.uint8)]
    labels = np.array([[0, 1, 2], [0, 0, 0]], np.uint8)
    with OutputFolder(tmp_path / "out", images, NAMES, PALETTE, layout="own_data") as out:
        first, second = (out.save(image, labels) for image in images)
    assert first == tmp_path / "out/labels/train/x.png"
    assert second == tmp_path / "out/labels/val/00000000.png"
    assert np.asarray(Image.open(first))[0].tolist() == [0, 1, 255]
    assert (tmp_path / "out/images/train/x.png").read_bytes() == Path(images[0]).read_bytes()
    assert (tmp_path / "out/images/val/00000000.png").is_file()
    assert class_list(tmp_path / "out/classes.txt") == NAMES
    with pytest.raises(UserError, match="holds labels"):  # they may have been corrected
        OutputFolder(tmp_path / "out", images, NAMES, PALETTE, layout="own_data")


def test_a_full_disk_is_reported_with_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def save(self: Image.Image, path: Path, **_: object) -> None:
        Path(path).write_bytes(b"half")
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Image.Image, "save", save)
    with pytest.raises(OSError, match=r"No space left .*pred/x\.png"):
        save_image(Image.new("L", (2, 2)), tmp_path / "pred" / "x.png")
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


def test_masks_of_earlier_calls_are_named(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    for images in (["x.jpg", "y.jpg"], ["y.jpg"]):
        with OutputFolder(tmp_path, images, NAMES, PALETTE) as out:
            assert not caplog.text or images == ["y.jpg"]
            for image in images:
                out.save(image, np.zeros((2, 2), np.uint8))
    assert "keeps 1 masks" in caplog.text


def test_arrays_are_numbered_on(tmp_path: Path) -> None:
    array, mask = np.zeros((2, 2, 3), np.uint8), np.zeros((2, 2), np.uint8)
    images, files = [array, "a/00000001.jpg", array], []
    for _ in range(2):
        with OutputFolder(tmp_path, images, NAMES, PALETTE) as out:
            files += [int(out.save(image, mask).stem) for image in images]
    assert files == [0, 1, 2, 3, 1, 4]
