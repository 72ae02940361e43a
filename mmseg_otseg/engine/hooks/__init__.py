"""Hooks for training and testing."""

from .checkpointing import DurableCheckpointHook, WorkDirLockHook
from .checks import FiniteLossHook, RunCheckHook
from .logs import MasterLoggerHook, OverlayHook, SeenPixelsHook
from .resuming import IterationSeedHook, ResumeCheckHook
from .stages import FineTuneHook, SelfTrainingHook

__all__ = [
    "DurableCheckpointHook",
    "FineTuneHook",
    "FiniteLossHook",
    "IterationSeedHook",
    "MasterLoggerHook",
    "OverlayHook",
    "ResumeCheckHook",
    "RunCheckHook",
    "SeenPixelsHook",
    "SelfTrainingHook",
    "WorkDirLockHook",
]
