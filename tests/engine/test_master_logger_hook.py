from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from mmengine.logging import MMLogger
from mmseg.registry import HOOKS


def finish_test(folder: Path) -> list[Path]:
    """What is written to a folder at the end of a test."""
    hook: Any = HOOKS.build(dict(type="MasterLoggerHook"))
    log = SimpleNamespace(get_log_after_epoch=lambda *_, **__: ({"mIoU": 40.0}, "mIoU: 40"))
    runner = SimpleNamespace(
        timestamp="20260101_000000",
        log_dir=str(folder),
        log_processor=log,
        logger=MMLogger.get_instance("test_master_logger_hook"),
        test_dataloader=[],
    )
    hook.before_run(runner)
    hook.after_test_epoch(runner)
    return list(folder.iterdir())


def test_the_first_process_writes_the_metrics(tmp_path: Path) -> None:
    (file,) = finish_test(tmp_path)
    assert file.name == "20260101_000000.json"
    assert json.loads(file.read_text()) == {"mIoU": 40.0}


def test_the_others_write_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mmengine.dist.utils.get_rank", lambda group=None: 1)
    assert not finish_test(tmp_path)
