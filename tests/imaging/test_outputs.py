from __future__ import annotations

import errno
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mmseg_otseg.imaging import OutputFolder
from mmseg_otseg.imaging.outputs import output_names


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


def test_files(tmp_path: Path) -> None:
    out = OutputFolder(tmp_path / "out", ["a/x.jpg", "b/x.jpg"])
    wide = np.array([[0, 300]], np.uint16)
    assert out.save_mask(out.name("b/x.jpg"), wide) == tmp_path / "out" / "pred" / "b" / "x.png"
    out.save_overlay("b/x", np.zeros((4, 5, 3), np.uint8))
    assert np.array_equal(Image.open(tmp_path / "out" / "pred" / "b" / "x.png"), wide)
    files = sorted(str(p.relative_to(tmp_path)) for p in tmp_path.rglob("*") if p.is_file())
    assert files == ["out/pred/b/x.png", "out/vis/b/x.jpg"]


def test_a_full_disk_is_reported_with_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def save(self: Image.Image, path: Path, **_: object) -> None:
        Path(path).write_bytes(b"half")
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Image.Image, "save", save)
    with pytest.raises(OSError, match=r"No space left .*pred/x\.png"):
        OutputFolder(tmp_path, ["x.jpg"]).save_mask("x", np.zeros((2, 2), np.uint8))
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


def test_arrays_are_numbered_on(tmp_path: Path) -> None:
    array = np.zeros((2, 2, 3), np.uint8)
    path = "a/00000001.jpg"
    names = []
    for _ in range(2):
        out = OutputFolder(tmp_path, [array, path, array])
        names += [out.name(image) for image in (array, path, array)]
    expected = ["00000000", "00000001", "00000002", "00000003", "00000001", "00000004"]
    assert names == expected
