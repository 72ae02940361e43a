from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from mmseg_otseg.imaging import ImageError, check_image_file, find_images, read_image, reading
from tests.helpers.hostile import png_of


def values(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "photos"
    (folder / "sub").mkdir(parents=True)
    for name in ("b.PNG", "a.jpg", "c.gif", "sub/d.png"):
        Image.fromarray(values(4, 5, 3)).save(folder / name)
    (folder / "notes.txt").write_text("no image")
    (folder / ".hidden.png").write_text("")
    return folder


def test_finds_images(folder: Path) -> None:
    array = values(2, 2, 3)
    images, left_out = find_images([array, folder, folder / "sub", "gone.png"])
    assert images[0] is array
    assert images[1:] == [
        *(str(folder / name) for name in ("a.jpg", "b.PNG", "c.gif", "sub/d.png")),
        "gone.png",
    ]
    assert left_out == [str(folder / "notes.txt"), str(folder / "sub")]
    assert find_images(str(folder)) == find_images(folder) == find_images((folder,))
    assert find_images(array)[0][0] is array


def test_formats(tmp_path: Path) -> None:
    image = np.full((20, 30, 3), (200, 100, 50), np.uint8)
    for suffix in ("png", "bmp", "tif", "ppm", "jpg", "webp", "gif", "jp2"):
        Image.fromarray(image).save(tmp_path / f"x.{suffix}")
        found, size = read_image(tmp_path / f"x.{suffix}")
        assert size == (20, 30) and found.dtype == np.uint8
        np.testing.assert_allclose(found, image, atol=8)


@pytest.mark.parametrize("mode", ["1", "L", "P", "LA", "RGBA", "CMYK", "I;16"])
def test_modes(mode: str, tmp_path: Path) -> None:
    if mode == "I;16":
        image = Image.fromarray(np.full((20, 30), 65535, np.uint16))
    else:
        image = Image.new("RGB", (30, 20), "white").convert(mode)
    image.save(tmp_path / "x.tif")
    found, size = read_image(tmp_path / "x.tif")
    assert size == (20, 30) and found.shape == (20, 30, 3) and (found == 255).all()


def test_orientation(tmp_path: Path) -> None:
    stored = cv2.resize(values(3, 4, 3), (64, 48), interpolation=cv2.INTER_CUBIC)
    for orientation in range(1, 9):
        exif = Image.Exif()
        exif[0x0112] = orientation
        Image.fromarray(stored).save(tmp_path / "whole.jpg", exif=exif)
        Image.fromarray(stored).save(tmp_path / "x.png", exif=exif)
        found, size = read_image(tmp_path / "x.png")
        expected = cv2.imread(str(tmp_path / "whole.jpg"))[..., ::-1].astype(int)
        assert size == found.shape[:2] == expected.shape[:2]
        assert np.abs(found - expected).mean() < 3


@pytest.mark.parametrize("suffix", ["png", "jpg"])
def test_large_images_are_read_smaller(
    suffix: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reading, "MAX_PIXELS_KEPT", 1000)
    image = cv2.resize(values(4, 6, 3), (200, 100), interpolation=cv2.INTER_LINEAR)
    Image.fromarray(image).save(tmp_path / f"x.{suffix}", quality=95)
    found, size = read_image(tmp_path / f"x.{suffix}")
    assert size == (100, 200) and found.shape[0] * found.shape[1] <= 1000
    expected = cv2.resize(image, found.shape[1::-1], interpolation=cv2.INTER_AREA)
    assert np.abs(found - expected.astype(int)).mean() < 6


def test_arrays() -> None:
    for shape in ((4, 5), (4, 5, 1), (4, 5, 3), (4, 5, 4)):
        array = values(*shape)
        found, size = read_image(array)
        assert size == (4, 5)
        bgr = array[..., :3] if array.ndim == 3 else array[..., None]
        np.testing.assert_array_equal(found[..., ::-1], np.broadcast_to(bgr, (4, 5, 3)))
    for array, message in (
        (np.zeros((4, 5, 3)), "float64"),
        (values(4, 5, 2), r"\(4, 5, 2\)"),
        (values(0, 5, 3), r"\(0, 5, 3\)"),
    ):
        with pytest.raises(ImageError, match=message):
            read_image(array)


@pytest.mark.parametrize("read", [read_image, check_image_file])
def test_bombs_are_refused_at_once(read: Callable, tmp_path: Path) -> None:
    (tmp_path / "bomb.png").write_bytes(png_of(2**31 - 1, 30000))
    with pytest.raises(ImageError, match=f"{2**31 - 1} x 30000"):
        read(tmp_path / "bomb.png")


def test_files_that_are_no_images(tmp_path: Path) -> None:
    path = tmp_path / "x.png"
    Image.fromarray(values(30, 30, 3)).save(path)
    whole = path.read_bytes()
    for data in (b"", b"hello", whole[:20], whole[: len(whole) // 2], b"%!PS-Adobe-3.0 EPSF-3.0\n"):
        path.write_bytes(data)
        with pytest.raises(ImageError):
            read_image(path)
        check_image_file(path)  # another reader may take it
    for read in (read_image, check_image_file):
        with pytest.raises(FileNotFoundError):
            read(tmp_path / "gone.png")
