"""A screen that shows what concerns the user; the log file keeps everything."""

from __future__ import annotations

import logging
import re
from typing import Any

from mmengine.logging import MMLogger
from mmengine.runner import Runner

#: Records that only the log file needs, by their beginning: long ones, and harmless warnings.
FOR_THE_FILE = re.compile(
    r"\n-{60}\nSystem environment:|Config:\n|Hooks will be executed in the following order"
    r"|paramwise_options -- |Distributed training is not used, all SyncBatchNorm"
    r'|The prefix is not set in metric class|"FileClient" will be deprecated'
    r'|"HardDiskBackend" is the alias|Failed to search registry with scope "mmseg"'
)


class ConsoleRunner(Runner):
    """mmengine's ``Runner``, with less on the screen.

    Environment, config, hooks and the options of each parameter go to the log file alone.
    """

    def build_logger(self, *args: Any, **kwargs: Any) -> MMLogger:
        """Build the logger as ``Runner`` does, and name its file."""
        logger = super().build_logger(*args, **kwargs)
        for handler in logger.handlers:
            if type(handler) is logging.StreamHandler:
                handler.addFilter(lambda record: not FOR_THE_FILE.match(record.getMessage()))
        logger.info(f"config, environment and all messages: {logger.log_file}")
        return logger
