"""Several processes on a machine without a GPU."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch.distributed as torch_dist
from mmengine.config import Config
from mmengine.device import get_device


@contextmanager
def process_group(cfg: Config) -> Iterator[None]:
    """Start what mmengine's launcher cannot start without a GPU; end every group at the end.

    mmengine calls ``torch.cuda.set_device`` for the launcher ``pytorch`` and wraps the model with
    ``device_ids``, whatever the machine has. It does neither when the group is already there and
    ``model_wrapper_cfg`` is given. With a GPU, or one process, everything is left to mmengine.

    Args:
        cfg: The config of the run; ``launcher`` is read, ``model_wrapper_cfg`` is set if unset.
    """
    if cfg.get("launcher", "none") == "pytorch" and get_device() == "cpu":
        if not torch_dist.is_initialized():
            torch_dist.init_process_group("gloo")
        if cfg.get("model_wrapper_cfg") is None:
            cfg.model_wrapper_cfg = dict(
                type="MMDistributedDataParallel",
                device_ids=None,  # else mmengine fills in the number of a GPU
                broadcast_buffers=False,
                find_unused_parameters=cfg.get("find_unused_parameters", False),
            )
    yield  # an error skips the rest: waiting for the other processes could then take forever
    if torch_dist.is_initialized():
        torch_dist.destroy_process_group()
