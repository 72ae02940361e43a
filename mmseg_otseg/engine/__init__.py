"""Everything that runs around the model: hooks, optimizers, schedules, checkpoints, processes."""

from mmseg_otseg.engine import hooks, loops
from mmseg_otseg.engine.checkpoint import read_checkpoint
from mmseg_otseg.engine.distributed import process_group
from mmseg_otseg.engine.loops import with_split
from mmseg_otseg.engine.optimizers import CPUAmpOptimWrapper, TrainableOptimWrapperConstructor
from mmseg_otseg.engine.runner import ConfigFolderRunner
from mmseg_otseg.engine.schedulers import WarmupPolyLR

loops.install()

__all__ = [
    "CPUAmpOptimWrapper",
    "ConfigFolderRunner",
    "TrainableOptimWrapperConstructor",
    "WarmupPolyLR",
    "hooks",
    "process_group",
    "read_checkpoint",
    "with_split",
]
