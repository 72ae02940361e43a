"""Runs in several processes on a machine without a GPU."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch.distributed as torch_dist
from mmengine.config import Config
from mmengine.device import get_device


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
        torch_dist.destroy_process_group()
