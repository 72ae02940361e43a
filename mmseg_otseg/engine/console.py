"""Shows only what concerns the user on the screen; the log file keeps everything."""

from __future__ import annotations

import logging
import os
import re
from pathlib import Path
from typing import Any

from mmengine.config import Config
from mmengine.logging import MMLogger
from mmengine.runner import CheckpointLoader, Runner

from .compiled import compile_losses

#: Beginnings of the messages that go only to the log file: long ones and harmless warnings.
FOR_THE_FILE = re.compile(
    r"\n-{60}\nSystem environment:|Config:\n|Hooks will be executed in the following order"
    r"|paramwise_options -- |Distributed training is not used, all SyncBatchNorm"
    r'|The prefix is not set in metric class|"FileClient" will be deprecated'
    r'|"HardDiskBackend" is the alias|Failed to search registry with scope "mmseg"'
)


class ConsoleRunner(Runner):
    """mmengine's ``Runner`` with less output on the screen.

    The environment, the config, the hooks and the options of each parameter go to the log file
    only. The ``load_from`` file is read once before the model is built, so that an unusable file
    fails early. ``compile`` in a config compiles the losses; see
    :func:`~.compiled.compile_losses`.
    """

    @classmethod
    def from_cfg(cls, cfg: Config) -> ConsoleRunner:
        """Build the runner as mmengine does, but refuse an unusable ``load_from`` file at once.

        mmengine reads the file only after CLIP has been built or even downloaded.
        """
        file = cfg.get("load_from")
        if file and Path(file).is_file() and os.environ.get("RANK", "0") == "0":
            CheckpointLoader.load_checkpoint(str(file), "cpu", logger="silent")
        return super().from_cfg(cfg)

    def build_logger(self, *args: Any, **kwargs: Any) -> MMLogger:
        """Build the logger as ``Runner`` does, and log the path of its file."""
        logger = super().build_logger(*args, **kwargs)
        for handler in logger.handlers:
            if type(handler) is logging.StreamHandler:
                handler.addFilter(lambda record: not FOR_THE_FILE.match(record.getMessage()))
        logger.info(f"config, environment and all messages: {logger.log_file}")
        return logger

    def _maybe_compile(self, target: str) -> None:
        options = self.cfg.get("compile")
        if not options:
            return
        if target != "train_step":
            self.logger.info("`compile` applies to training only and is ignored here.")
            return
        compile_losses(self.model, **({} if options is True else options))
        self.logger.info("The first iteration compiles the losses, which takes a while.")
