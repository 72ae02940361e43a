from __future__ import annotations

import json
import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from mmengine.logging import MMLogger
from mmseg.registry import HOOKS

from mmseg_otseg.engine import ZeroShotRunner
from mmseg_otseg.engine.hooks import logs
from tests.helpers.tiny_run import tiny_config, write_images


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


def test_first_lines_come_early(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Iteration 1, then 30 s after a line; mmengine logs every ``interval`` and each pass, of 2."""
    seconds = iter([100.0, 110.0, 131.0, 140.0, 141.0])
    monkeypatch.setattr(logs, "monotonic", seconds.__next__)
    write_images(tmp_path)
    cfg = tiny_config(tmp_path, train_cfg=dict(max_iters=5, val_interval=9))
    cfg.default_hooks.logger.interval = 5
    runner = ZeroShotRunner.from_cfg(cfg)
    lines: list[str] = []
    monkeypatch.setattr(runner.logger, "info", lambda text, *_: lines.append(str(text)))
    runner.train()
    logged = [re.findall(r"Iter\(train\) \[(\d)/5\]", line) for line in lines]
    assert [found[0] for found in logged if found] == ["1", "2", "3", "5"]
