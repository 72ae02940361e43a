"""The log of a run: its first lines early, and its test metrics from one process only."""

from __future__ import annotations

from time import monotonic
from typing import Any

from mmengine.dist import get_world_size, master_only
from mmengine.hooks import LoggerHook
from mmengine.runner import Runner
from mmseg.registry import HOOKS

MAX_SILENCE = 30.0  # seconds


@HOOKS.register_module()
class MasterLoggerHook(LoggerHook):
    """mmengine's ``LoggerHook``, with two differences.

    It also logs the first iteration and, in a run of one process, whenever nothing was logged for
    30 seconds; on a CPU, ``interval`` iterations can take minutes. And only the first process
    writes the test metrics: if two wrote ``<time>.json`` at once, it would not be valid JSON.
    """

    interval: int
    _last_line = 0.0

    def after_train_iter(
        self, runner: Runner, batch_idx: int, data_batch: Any = None, outputs: Any = None
    ) -> None:
        interval, now = self.interval, monotonic()
        # Several processes must log at the same iterations, because logging gathers from them.
        silent = get_world_size() == 1 and now - self._last_line > MAX_SILENCE
        if runner.iter == 0 or silent:
            self.interval = 1
        if self.every_n_inner_iters(batch_idx, self.interval):
            self._last_line = now
        super().after_train_iter(runner, batch_idx, data_batch, outputs)
        self.interval = interval

    @master_only
    def after_test_epoch(self, runner: Runner, metrics: dict[str, float] | None = None) -> None:
        super().after_test_epoch(runner, metrics)
