"""Hooks for training and testing."""

from .checkpointing import DurableCheckpointHook, MasterLoggerHook, WorkDirLockHook
from .checks import FiniteLossHook, RunCheckHook
from .stages import FineTuneHook, IterationSeedHook, ResumeCheckHook, SelfTrainingHook

__all__ = [
    "DurableCheckpointHook",
    "FineTuneHook",
    "FiniteLossHook",
    "IterationSeedHook",
    "MasterLoggerHook",
    "ResumeCheckHook",
    "RunCheckHook",
    "SelfTrainingHook",
    "WorkDirLockHook",
]
