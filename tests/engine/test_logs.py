from __future__ import annotations

import json
import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import cv2
import pytest
from mmengine.logging import MMLogger
from mmseg.registry import HOOKS

from mmseg_otseg.engine import ZeroShotRunner
from mmseg_otseg.engine.hooks import logs
from tests.helpers.tiny_run import CLASSES, tiny_config, write_images


@pytest.mark.parametrize("rank", [0, 1])
def test_the_first_process_alone_writes_the_metrics(
    rank: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mmengine.dist.utils.get_rank", lambda group=None: rank)
    hook: Any = HOOKS.build(dict(type="MasterLoggerHook"))
    log = SimpleNamespace(get_log_after_epoch=lambda *_, **__: ({"mIoU": 40.0}, "mIoU: 40"))
    runner = SimpleNamespace(
        timestamp="20260101_000000",
        log_dir=str(tmp_path),
        log_processor=log,
        logger=MMLogger.get_instance("test_logs"),
        test_dataloader=[],
    )
    hook.before_run(runner)
    hook.after_test_epoch(runner)
    written = {file.name: json.loads(file.read_text()) for file in tmp_path.iterdir()}
    assert written == ({} if rank else {"20260101_000000.json": {"mIoU": 40.0}})


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


def test_nothing_seen_is_said(tmp_path: Path, capfd: pytest.CaptureFixture) -> None:
    write_images(tmp_path)
    cfg = tiny_config(tmp_path, train_cfg=dict(max_iters=1, val_interval=2))
    split = dict(classes=CLASSES, unseen=CLASSES[:2])  # no pixel is of the third, see below
    cfg.merge_from_dict({"model.neck.text.split": split})
    for part in ("train", "val", "test"):
        cfg.merge_from_dict({f"{part}_dataloader.dataset.split": split})
    for path in (tmp_path / "labels" / "train").glob("*.png"):
        label = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
        cv2.imwrite(str(path), label % 2)
    ZeroShotRunner.from_cfg(cfg).train()
    text = "".join(capfd.readouterr())
    assert re.search(r" 1 iterations .*check_data\.py", text) and "seen_pixels: 0.0" in text
