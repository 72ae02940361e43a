"""Hooks for training and testing: checkpoints, checks of a run, self-training, and logs."""

from mmseg_otseg.engine.hooks.durable_checkpoint_hook import DurableCheckpointHook
from mmseg_otseg.engine.hooks.fine_tune_hook import FineTuneHook
from mmseg_otseg.engine.hooks.finite_loss_hook import FiniteLossHook
from mmseg_otseg.engine.hooks.iteration_seed_hook import IterationSeedHook
from mmseg_otseg.engine.hooks.master_logger_hook import MasterLoggerHook
from mmseg_otseg.engine.hooks.overlay_hook import OverlayHook
from mmseg_otseg.engine.hooks.resume_check_hook import ResumeCheckHook
from mmseg_otseg.engine.hooks.run_check_hook import RunCheckHook
from mmseg_otseg.engine.hooks.seen_pixels_hook import SeenPixelsHook
from mmseg_otseg.engine.hooks.self_training_hook import SelfTrainingHook
from mmseg_otseg.engine.hooks.work_dir_lock_hook import WorkDirLockHook

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
