"""Log files that several processes do not write into at once."""

from __future__ import annotations

from mmengine.dist import master_only
from mmengine.hooks import LoggerHook
from mmengine.runner import Runner
from mmseg.registry import HOOKS


@HOOKS.register_module()
class MasterLoggerHook(LoggerHook):
    """mmengine's ``LoggerHook``, with the metrics of a test written by the first process alone.

    mmengine's own writes ``<time>.json`` from every process of a distributed test. Two of them at
    the same moment leave a file that is no JSON any more. All options are ``LoggerHook``'s.
    """

    @master_only
    def after_test_epoch(self, runner: Runner, metrics: dict[str, float] | None = None) -> None:
        super().after_test_epoch(runner, metrics)
