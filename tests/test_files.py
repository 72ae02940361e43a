"""A file is written completely, or stays as it was."""

from pathlib import Path

import pytest

from mmseg_otseg.files import write_atomically


@pytest.mark.parametrize("fsync", [False, True])
def test_a_file_is_complete_or_as_before(tmp_path: Path, fsync: bool) -> None:
    file = tmp_path / "new folder" / "a.json"
    with write_atomically(file, fsync) as part:
        part.write_text("first")
        assert not file.exists()
    with pytest.raises(KeyboardInterrupt), write_atomically(file, fsync) as part:
        part.write_text("half")
        raise KeyboardInterrupt
    assert file.read_text() == "first" and [*file.parent.iterdir()] == [file]
    with write_atomically(file, fsync) as part, write_atomically(part, fsync) as other:
        assert other != part  # nested: even a temporary file can be written so
        other.write_text("second")
    assert file.read_text() == "second"


def test_the_temporary_file_of_a_long_name(tmp_path: Path) -> None:
    file = tmp_path / f"{75 * '猫'}.png"  # 229 bytes; most file systems allow 255
    with write_atomically(file) as part:
        part.touch()
    assert file.is_file()


def test_an_error_names_the_file(tmp_path: Path) -> None:
    (tmp_path / "taken").touch()
    with (
        pytest.raises(OSError, match=r"while writing.*a\.json"),
        write_atomically(tmp_path / "taken" / "a.json"),
    ):
        pass
