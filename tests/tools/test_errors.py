"""What the tools report of an error."""

from __future__ import annotations

import os
import subprocess
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
    missing = ModuleNotFoundError("No module named 'pycocotools.mask'", name="pycocotools")
    assert '"mmseg_otseg[coco]"' in message_for_user(missing)
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


def test_one_paragraph_or_the_error_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["tools/train.py"])
    monkeypatch.delenv(errors.TRACEBACK, raising=False)
    with pytest.raises(SystemExit, match=r"^train\.py: error: .*cat.*$"):
        run(split_with_a_double_name)
    with pytest.raises(ValueError, match="three"):
        run(lambda: int("three"))
    monkeypatch.setenv(errors.TRACEBACK, "1")
    with pytest.raises(ValueError, match="cat"):
        run(split_with_a_double_name)


def test_the_log_file_of_a_run_has_the_traceback(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture
) -> None:
    monkeypatch.setattr(sys, "argv", ["tools/train.py"])
    MMLogger.get_instance("failing", log_file=str(file := tmp_path / "run.log"))
    with pytest.raises(SystemExit):
        run(split_with_a_double_name)
    with pytest.raises(ValueError, match="three"):
        run(lambda: int("three"))
    log, (out, err) = file.read_text(), capfd.readouterr()
    assert "in split_with_a_double_name" in log and "three" in log
    assert "Traceback" not in out + err


def test_the_log_file_has_the_error_of_another_process(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "argv", ["tools/train.py"])
    monkeypatch.setattr("time.sleep", lambda _: None)
    monkeypatch.setenv("RANK", "1")
    logger = MMLogger.get_instance("second", log_file=str(file := tmp_path / "run.log"))
    del logger.handlers[1:]  # mmengine opens the file in the first process only
    file.write_text("of the first process\n")
    with pytest.raises(SystemExit):
        run(split_with_a_double_name)
    log = file.read_text()
    assert log.startswith("of the first") and "in split_with_a_double_name" in log


def test_an_interrupt_is_no_error_even_within_one() -> None:
    def interrupted() -> None:
        try:
            raise KeyboardInterrupt
        except BaseException:
            raise SyntaxError("Failed to format the config file") from None

    with pytest.raises(SystemExit) as ended:
        run(interrupted)
    assert ended.value.code == 130


@pytest.mark.parametrize(("rank", "waits"), [(None, 0), ("0", 0), ("1", 1)])
def test_all_processes_but_the_first_let_it_speak(
    rank: str | None, waits: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "argv", ["tools/train.py"])
    monkeypatch.delenv("RANK", raising=False)
    if rank is not None:
        monkeypatch.setenv("RANK", rank)
    waited: list[float] = []
    monkeypatch.setattr("time.sleep", waited.append)
    with pytest.raises(SystemExit, match="cat"):
        run(split_with_a_double_name)
    assert len(waited) == waits


def test_a_reader_that_has_seen_enough_is_no_error() -> None:
    read, write = os.pipe()
    os.close(read)
    code = "from mmseg_otseg_cli.errors import run; run(lambda: print('x' * 100_000))"
    ended = subprocess.run([sys.executable, "-c", code], stdout=write, stderr=subprocess.PIPE)
    os.close(write)
    assert ended.returncode == 1 and ended.stderr == b""
