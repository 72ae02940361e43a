from __future__ import annotations

import errno
from pathlib import Path
from unittest.mock import patch

import pytest
from mmengine.fileio import LocalBackend
from mmengine.hooks import Hook
from mmengine.runner import Runner
from mmseg.registry import HOOKS

from mmseg_otseg.engine import read_checkpoint
from mmseg_otseg.engine.run_folder import latest_checkpoint
from tests.helpers.toy_run import toy_runner


def names(folder: Path) -> set[str]:
    return {file.name for file in folder.glob("*.pth*")}


def best_of(file: Path) -> float:
    return read_checkpoint(file)["message_hub"]["runtime_info"]["best_score"]


@pytest.mark.parametrize(
    ("rule", "scores", "best"), [("greater", [1, 3, 2], 3), ("less", [3, 1, float("nan")], 1)]
)
def test_the_best_and_the_last_are_kept(
    rule: str, scores: list[float], best: float, tmp_path: Path
) -> None:
    toy_runner(tmp_path, scores, max_keep_ckpts=1, rule=rule).train()
    assert names(tmp_path) == {"iter_3.pth", "best_score_iter_2.pth"}
    assert best_of(tmp_path / "best_score_iter_2.pth") == best_of(tmp_path / "iter_3.pth") == best
    assert (tmp_path / "last_checkpoint").read_text() == str(tmp_path / "iter_3.pth")


class FailingSave(Hook):
    """The process is gone when the ``number``-th checkpoint is saved."""

    def __init__(self, number: int) -> None:
        self.left = number

    def before_save_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        self.left -= 1
        if self.left == 0:
            raise KeyboardInterrupt


# In each iteration its checkpoint is saved, then the best, then its checkpoint again.
@pytest.mark.parametrize(("number", "newest"), [(2, 1), (4, 1), (5, 2), (6, 2), (8, 3)])
def test_a_run_that_ends_while_it_saves_goes_on(number: int, newest: int, tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        toy_runner(tmp_path, [1, 2, 3], [FailingSave(number)], max_keep_ckpts=1).train()
    # Nothing was deleted before its successor was there.
    assert latest_checkpoint(tmp_path) == str(tmp_path / f"iter_{newest}.pth")
    toy_runner(tmp_path, [1, 2, 3], max_keep_ckpts=1, resume=True).train()
    assert names(tmp_path) == {"iter_3.pth", "best_score_iter_3.pth"}
    assert best_of(tmp_path / "iter_3.pth") == 3


def test_resumes_from_the_latest_that_can_be_read(tmp_path: Path) -> None:
    toy_runner(tmp_path, [1, 2]).train()
    (tmp_path / "iter_2.pth").write_bytes(b"damaged")
    toy_runner(tmp_path, [1, 2, 3], resume=True).train()
    assert read_checkpoint(tmp_path / "iter_2.pth")["meta"]["iter"] == 2
    assert (tmp_path / "iter_3.pth").is_file()

    toy_runner(tmp_path / "new", [1], resume=True).train()
    assert (tmp_path / "new" / "iter_1.pth").is_file()


def test_a_full_disk_is_reported_with_the_file(tmp_path: Path) -> None:
    def put(self: LocalBackend, data: bytes, path: str) -> None:
        Path(path).write_bytes(data[:100])
        raise OSError(errno.ENOSPC, "No space left on device")

    said = rf"No space left.*{tmp_path}/iter_1\.pth'"
    with patch.object(LocalBackend, "put", put), pytest.raises(OSError, match=said):
        toy_runner(tmp_path, [1]).train()
    assert not names(tmp_path)


def test_a_new_run_in_a_used_folder_says_so(tmp_path: Path) -> None:
    toy_runner(tmp_path, [1]).train()
    runner = toy_runner(tmp_path, [1])
    runner.train()
    assert "--resume" in Path(runner.log_dir, f"{runner.timestamp}.log").read_text()


def test_settings_that_cannot_work(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="greatest"):
        HOOKS.build(dict(type="DurableCheckpointHook", rule="greatest"))
    with pytest.raises(ValueError, match=r"save_best='hIoU' .* score"):
        toy_runner(tmp_path, [1], save_best="hIoU").train()
