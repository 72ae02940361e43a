from __future__ import annotations

from pathlib import Path

import pytest
import torch

from mmseg_otseg.engine.run_folder import (
    default_work_dir,
    latest_checkpoint,
    whole_file,
)


def write_checkpoint(file: Path) -> Path:
    """A checkpoint that a run could continue from."""
    torch.save(dict(meta={}, optimizer={}, message_hub={}, state_dict={}), file)
    return file


def test_configs_of_one_name_in_two_folders_have_two_work_folders() -> None:
    assert default_work_dir("configs/otseg/voc_512.py") == "work_dirs/otseg/voc_512"
    assert default_work_dir("configs/zegot/voc_512.py") == "work_dirs/zegot/voc_512"


@pytest.mark.parametrize("pointer", ["", "gone.pth", "iter_12.pth", None])
def test_the_newest_readable_one_is_found_without_the_pointer(
    pointer: str | None, tmp_path: Path
) -> None:
    write_checkpoint(tmp_path / "iter_4.pth")
    newest = write_checkpoint(tmp_path / "iter_10.pth")
    (tmp_path / "iter_12.pth").write_bytes(newest.read_bytes()[:-100])
    torch.save({"state_dict": {}}, tmp_path / "iter_14.pth")  # nothing to resume from
    write_checkpoint(tmp_path / "best_hIoU_iter_18.pth")
    if pointer is not None:
        (tmp_path / "last_checkpoint").write_text(pointer, encoding="latin-1")
    assert latest_checkpoint(tmp_path) == str(newest)


def test_the_pointer_comes_first_also_in_a_folder_that_was_moved(tmp_path: Path) -> None:
    named = write_checkpoint(tmp_path / "iter_2.pth")
    write_checkpoint(tmp_path / "iter_4.pth")  # of another run, say
    (tmp_path / "last_checkpoint").write_text("/elsewhere/iter_2.pth")
    assert latest_checkpoint(tmp_path) == str(named)


def test_a_folder_without_a_checkpoint(tmp_path: Path) -> None:
    assert latest_checkpoint(tmp_path / "new") is None
    (tmp_path / "last_checkpoint").touch()
    assert latest_checkpoint(tmp_path) is None
    (tmp_path / "last_checkpoint").write_text("iter_8.pth")
    with pytest.raises(ValueError, match=r"iter_8\.pth"):
        latest_checkpoint(tmp_path)
    (tmp_path / "iter_2.pth").write_bytes(b"no checkpoint")
    with pytest.raises(ValueError, match=r"iter_2\.pth"):
        latest_checkpoint(tmp_path)


def test_an_interrupted_write_leaves_what_was_there(tmp_path: Path) -> None:
    file = tmp_path / "file"
    with whole_file(file) as part:
        part.write_text("old")
    with pytest.raises(KeyboardInterrupt), whole_file(file) as part:
        part.write_text("ne")
        raise KeyboardInterrupt
    assert file.read_text() == "old"
    with whole_file(file) as part:
        part.write_text("new")
    assert file.read_text() == "new" and list(tmp_path.iterdir()) == [file]
