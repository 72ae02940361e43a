"""The runner: mmengine's, over a resolved config, in one process or several."""

from __future__ import annotations

import gc
import logging
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch.distributed as torch_dist
from mmengine.config import Config
from mmengine.device import get_device
from mmengine.logging import MMLogger
from mmengine.runner import Runner
from mmseg.registry import RUNNERS

from mmseg_otseg.engine.config import resolve
from mmseg_otseg.engine.run_folder import default_work_dir, latest_checkpoint

#: Beginnings of the messages that go only to the log file: long ones and harmless warnings.
FILE_ONLY_MESSAGES = re.compile(
    r"\n-{60}\nSystem environment:|Config:\n|Hooks will be executed in the following order"
    r"|paramwise_options -- |Distributed training is not used, all SyncBatchNorm"
    r'|The prefix is not set in metric class|"FileClient" will be deprecated'
    r'|"HardDiskBackend" is the alias|Failed to search registry with scope "mmseg"'
)


@RUNNERS.register_module()
class ZeroShotRunner(Runner):
    """mmengine's ``Runner``, which resolves the config before it builds anything from it.

    Its work folder is by default :func:`~.run_folder.default_work_dir`; a run that resumes without
    naming a checkpoint uses the latest readable one there; and what concerns the machine rather
    than the user goes to the log file only. A config chooses this runner with ``runner_type``, so
    mmseg's own tools and ``mim train`` use it too.
    """

    @classmethod
    def from_cfg(cls, cfg: Config) -> Runner:
        """Build the runner from a config.

        Args:
            cfg: A config; see :func:`~.config.resolve`.

        Raises:
            UserError: If the config contradicts itself, a setting has no effect, or the run resumes
                and none of its checkpoints can be read.
        """
        cfg = resolve(cfg)
        file = getattr(cfg, "filename", None)
        if file is not None:
            mmseg_default = os.path.join("./work_dirs", Path(file).stem)
            if cfg.get("work_dir") in (None, mmseg_default):
                cfg.work_dir = default_work_dir(file)
        if cfg.get("resume") and cfg.get("load_from") is None:
            cfg.load_from = latest_checkpoint(cfg.work_dir)
            cfg.resume = cfg.load_from is not None
        return super().from_cfg(cfg)

    def build_logger(self, *args: Any, **kwargs: Any) -> MMLogger:
        """Build the logger as ``Runner`` does, and log the path of its file."""
        logger = super().build_logger(*args, **kwargs)
        for handler in logger.handlers:
            if type(handler) is logging.StreamHandler:
                handler.addFilter(lambda record: not FILE_ONLY_MESSAGES.match(record.getMessage()))
        logger.info(f"config, environment and all messages: {logger.log_file}")
        return logger


@contextmanager
def process_group(cfg: Config) -> Iterator[None]:
    """Initialize the process group on a machine without a GPU; destroy any group at the end.

    For the launcher ``pytorch``, mmengine calls ``torch.cuda.set_device`` and wraps the model with
    ``device_ids`` even if the machine has no GPU. It does neither if the process group already
    exists and ``model_wrapper_cfg`` is set. With a GPU or a single process, mmengine does
    everything. After an error, the group is not destroyed.

    Args:
        cfg: The config of the run. ``launcher`` is read; ``model_wrapper_cfg`` is set if missing.
    """
    if cfg.get("launcher", "none") == "pytorch" and get_device() == "cpu":
        if not torch_dist.is_initialized():
            torch_dist.init_process_group("gloo")
        if cfg.get("model_wrapper_cfg") is None:
            cfg.model_wrapper_cfg = dict(
                type="MMDistributedDataParallel",
                device_ids=None,  # otherwise mmengine fills in a GPU index
                broadcast_buffers=False,
                find_unused_parameters=cfg.get("find_unused_parameters", False),
            )
    yield  # without `finally`: destroying waits for other processes, which may have failed too
    if torch_dist.is_initialized():
        torch_dist.barrier()
        torch_dist.destroy_process_group()
        gc.collect()  # ends the threads of the group, which the runner holds in cycles
