"""What runs around the model: hooks, optimisers, schedules, checkpoints and processes."""

from mmseg_otseg.engine.checkpoint import read_checkpoint
from mmseg_otseg.engine.distributed import process_group
from mmseg_otseg.engine.hooks import (
    IterationSeedHook,
    MasterLoggerHook,
    SeenPixelsHook,
    SelfTrainingHook,
    VocabularyCheckHook,
)
from mmseg_otseg.engine.optimizers import TrainableOptimWrapperConstructor
from mmseg_otseg.engine.schedulers import WarmupPolyLR

__all__ = [
    "IterationSeedHook",
    "MasterLoggerHook",
    "SeenPixelsHook",
    "SelfTrainingHook",
    "TrainableOptimWrapperConstructor",
    "VocabularyCheckHook",
    "WarmupPolyLR",
    "process_group",
    "read_checkpoint",
]
