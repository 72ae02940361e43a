"""A screen that shows what concerns the user; the log file keeps everything."""

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

#: Records that only the log file needs, by their beginning: long ones, and harmless warnings.
FOR_THE_FILE = re.compile(
    r"\n-{60}\nSystem environment:|Config:\n|Hooks will be executed in the following order"
    r"|paramwise_options -- |Distributed training is not used, all SyncBatchNorm"
    r'|The prefix is not set in metric class|"FileClient" will be deprecated'
    r'|"HardDiskBackend" is the alias|Failed to search registry with scope "mmseg"'
)


class ConsoleRunner(Runner):
    """mmengine's ``Runner``, with less on the screen.

    Environment, config, hooks and the options of each parameter go to the log file alone. What can
    be told of a checkpoint without the model is told first. ``compile`` in a config compiles the
    losses, see :func:`~.compiled.compile_losses`.
    """

    @classmethod
    def from_cfg(cls, cfg: Config) -> ConsoleRunner:
        """As mmengine's; a file of ``load_from`` that cannot be used is refused at once.

        mmengine reads it after CLIP was built, or even downloaded.
        """
        file = cfg.get("load_from")
        if file and Path(file).is_file() and os.environ.get("RANK", "0") == "0":
            CheckpointLoader.load_checkpoint(str(file), "cpu", logger="silent")
        return super().from_cfg(cfg)

    def build_logger(self, *args: Any, **kwargs: Any) -> MMLogger:
        """Build the logger as ``Runner`` does, and name its file."""
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
            self.logger.info("`compile` is for training: this runs as it is.")
            return
        compile_losses(self.model, **({} if options is True else options))
        self.logger.info("The losses are compiled in the first iteration, which takes a while.")
