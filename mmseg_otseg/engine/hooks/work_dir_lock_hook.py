"""Prevents two runs from training in the same work folder."""

from __future__ import annotations

import logging
import os
import threading
from typing import Any

from mmengine.dist import broadcast_object_list, is_main_process
from mmengine.hooks import Hook
from mmengine.logging import print_log
from mmengine.runner import BaseLoop, Runner
from mmseg.registry import HOOKS
from torch.distributed import is_torchelastic_launched

from mmseg_otseg.engine.run_folder import lock_folder

SECONDS_BETWEEN_LOOKS = 1.0


@HOOKS.register_module()
class WorkDirLockHook(Hook):
    """Locks the work folder during training, and stops workers whose launcher was killed.

    The first process of the run holds the lock. Processes started by torchrun stop when torchrun is
    killed. Without this, they would continue in the background and keep the folder locked.

    Raises:
        BlockingIOError: If another process trains in the folder; raised before anything is loaded.
    """

    priority = "VERY_HIGH"  # before the hook that looks for a checkpoint to resume from

    def __init__(self) -> None:
        self._lock: int | None = None
        self._over = threading.Event()

    def before_run(self, runner: Runner) -> None:
        if not isinstance(runner._train_loop, BaseLoop):
            return  # a test or validation may run at the same time as training
        refused: list[Any] = [None]
        if is_main_process():
            try:
                self._lock = lock_folder(runner.work_dir)
            except BlockingIOError as error:
                refused = [str(error)]
        broadcast_object_list(refused)  # otherwise the other processes would wait for the first
        if refused[0] is not None:
            raise BlockingIOError(refused[0])
        if is_torchelastic_launched():
            threading.Thread(target=self._end_with, args=(os.getppid(),), daemon=True).start()

    def after_run(self, runner: Runner) -> None:
        self._over.set()
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def _end_with(self, launcher: int) -> None:
        while not self._over.wait(SECONDS_BETWEEN_LOOKS):
            if os.getppid() != launcher:
                print_log(
                    f"The launcher (process {launcher}) died: training stops.",
                    "current",
                    logging.ERROR,
                )
                os._exit(1)
