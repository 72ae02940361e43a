"""Everything that runs around the model: hooks, optimizers, schedules, checkpoints, processes."""

from mmseg_otseg.engine import hooks, optimizers
from mmseg_otseg.engine.checkpoint import read_checkpoint
from mmseg_otseg.engine.config import resolve
from mmseg_otseg.engine.runner import ZeroShotRunner, process_group

__all__ = ["ZeroShotRunner", "hooks", "optimizers", "process_group", "read_checkpoint", "resolve"]
