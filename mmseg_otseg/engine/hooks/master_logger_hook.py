"""Test metrics written by one process only."""

from __future__ import annotations

from mmengine.dist import master_only
from mmengine.hooks import LoggerHook
from mmengine.runner import Runner
from mmseg.registry import HOOKS


@HOOKS.register_module()
class MasterLoggerHook(LoggerHook):
    """mmengine's ``LoggerHook``, except that only the first process writes the test metrics.

    mmengine's hook writes ``<time>.json`` from every process of a distributed test. If two
    processes write at the same time, the file is not valid JSON. The options are the same.
    """

    @master_only
    def after_test_epoch(self, runner: Runner, metrics: dict[str, float] | None = None) -> None:
        super().after_test_epoch(runner, metrics)
