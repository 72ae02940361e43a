"""Prevents two runs from training in the same work folder."""

from __future__ import annotations

import os
from typing import Any

from mmengine.dist import broadcast_object_list, is_main_process
from mmengine.hooks import Hook
from mmengine.runner import Runner
from mmseg.registry import HOOKS
from torch.distributed import is_torchelastic_launched

from mmseg_otseg.engine.run_folder import lock_folder


@HOOKS.register_module()
class WorkDirLockHook(Hook):
    """Locks the work folder during training, and stops workers whose launcher was killed.

    The first process of the run holds the lock. Without the second check, processes whose torchrun
    was killed would train on in the background and keep the folder locked.

    Raises:
        BlockingIOError: If another process trains in the folder.
        RuntimeError: After an iteration, if the launcher has died.
    """

    priority = "VERY_HIGH"  # before the hooks that write to the folder

    def __init__(self) -> None:
        self._lock: int | None = None
        self._launcher = os.getppid()

    def before_train(self, runner: Runner) -> None:
        refused: list[Any] = [None]
        if is_main_process():
            try:
                self._lock = lock_folder(runner.work_dir)
            except BlockingIOError as error:
                refused = [str(error)]
        broadcast_object_list(refused)  # otherwise the other processes would wait for the first
        if refused[0] is not None:
            raise BlockingIOError(refused[0])

    def after_train_iter(self, runner: Runner, *_: Any, **__: Any) -> None:
        if is_torchelastic_launched() and os.getppid() != self._launcher:
            raise RuntimeError(f"The launcher (process {self._launcher}) died: training stops.")

    def after_train(self, runner: Runner) -> None:
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None
