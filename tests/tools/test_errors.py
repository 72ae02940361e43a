"""What the tools report of an error."""

from __future__ import annotations

import sys
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import pytest
import torch
from mmengine.logging import MMLogger
from mmseg.registry import MODELS
from mmseg_otseg_cli import errors
from mmseg_otseg_cli.errors import message_for_user, run
from torch.utils.data import DataLoader, Dataset

from mmseg_otseg.structures import ClassSplit


def split_with_a_double_name() -> None:
    ClassSplit.build({"classes": ["cat", "cat"]})


def caught(function, *arguments: object) -> Exception:
    with pytest.raises(Exception) as error:
        function(*arguments)
    return error.value


def test_what_a_user_can_fix_has_a_message() -> None:
    assert "cat" in message_for_user(caught(split_with_a_double_name))
    assert message_for_user(OSError(5, "Input/output error")).endswith("error")
    assert message_for_user(ModuleNotFoundError("No module named 'gradio'"))
    not_installed = ModuleNotFoundError("No module named 'mmseg_otseg'", name="mmseg_otseg")
    assert "README.md" in message_for_user(not_installed)
    assert message_for_user(torch.OutOfMemoryError("out of memory")) == "out of memory"
    assert "Nothing is not in" in message_for_user(caught(MODELS.build, dict(type="Nothing")))
    assert "color" in message_for_user(caught(MODELS.build, dict(type="CLIPBackbone", color=3)))


class Unreadable(Dataset):
    def __len__(self) -> int:
        return 1

    def __getitem__(self, index: int) -> None:
        split_with_a_double_name()


def test_errors_of_other_processes() -> None:
    expected = str(caught(split_with_a_double_name))
    assert message_for_user(caught(next, iter(DataLoader(Unreadable(), num_workers=1)))) == expected
    with ProcessPoolExecutor(1) as pool:
        error = caught(pool.submit(split_with_a_double_name).result)
        assert message_for_user(error) == expected
        assert message_for_user(caught(pool.submit(int, "three").result)) is None


@pytest.fixture
def reported(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture):
    """Run a function as a tool that fails; returns what it prints."""
    monkeypatch.setattr(sys, "argv", ["tools/train.py"])
    monkeypatch.delenv(errors.TRACEBACK, raising=False)

    def report(main) -> str:
        with pytest.raises(SystemExit) as ended:
            run(main)
        assert ended.value.code
        return capfd.readouterr().err

    return report


def test_one_paragraph_or_a_traceback(reported, monkeypatch: pytest.MonkeyPatch) -> None:
    text = reported(split_with_a_double_name)
    assert text.startswith("train.py: error: ") and text.count("\n") == 1
    assert "Traceback" in reported(lambda: int("three"))
    monkeypatch.setenv(errors.TRACEBACK, "1")
    assert "Traceback" in reported(split_with_a_double_name)


def test_the_log_file_has_the_traceback_and_says_where_a_disk_is_full(
    reported, tmp_path: Path
) -> None:
    log = tmp_path / "run.log"
    MMLogger.get_instance("errors_test", log_file=str(log))  # the current one from here on
    assert "Traceback" not in reported(split_with_a_double_name)
    assert "Traceback" in log.read_text() and "cat" in log.read_text()
    full = OSError(28, "No space left on device")  # of a file that Python does not name
    assert str(tmp_path) in message_for_user(full)
