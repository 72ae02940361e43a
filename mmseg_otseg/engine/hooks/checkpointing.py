"""Writes a run's checkpoints and log so that a run killed at any moment can be resumed."""

from __future__ import annotations

import math
import os
from pathlib import Path
from time import monotonic
from typing import Any

from mmengine.dist import broadcast_object_list, get_world_size, is_main_process, master_only
from mmengine.hooks import Hook, LoggerHook
from mmengine.runner import Runner
from mmseg.registry import HOOKS
from torch.distributed import is_torchelastic_launched

from mmseg_otseg.engine.checkpoint import to_plain
from mmseg_otseg.engine.config import UNSEEN_METRICS
from mmseg_otseg.engine.run_folder import POINTER, lock_folder
from mmseg_otseg.errors import UserError
from mmseg_otseg.files import UNFINISHED, write_atomically

CHECKPOINT_NAME = "iter_{}.pth"
MAX_SILENCE = 30.0  # seconds


@HOOKS.register_module()
class DurableCheckpointHook(Hook):
    """Saves checkpoints so that a run killed at any moment resumes as if it had not been.

    It takes the place of mmengine's ``CheckpointHook`` in training that counts iterations, and
    writes the same files, ``iter_*.pth`` and ``best_<metric>_*.pth``, into the work folder:

    - A file is written under a temporary name and renamed once it is completely on disk. It holds
      tensors and plain values only.
    - An old checkpoint is deleted only after the new one exists.
    - After a validation, the checkpoint of that iteration is written again with the result. A
      resumed run whose checkpoint lacks the result of a validation that was due validates first.

    What a run knows about its files travels in the checkpoint, as ``best_score``, ``best_file``,
    ``keep_ckpt_ids`` and ``iter_validated`` of the message hub's ``runtime_info``.

    Args:
        interval: Iterations between two checkpoints; -1 saves the last one only.
        by_epoch: Must be False, as in mmengine's hook for iterations.
        max_keep_ckpts: How many of them to keep; -1 keeps all.
        save_best: The metric whose greatest value chooses the best checkpoint, which is saved
            without the state of the optimizer; None saves none. ``mIoU_S`` takes the place of
            ``mIoU_U`` and ``hIoU`` if the data has no labels of unseen classes.

    Raises:
        UserError: If training counts epochs, or ``save_best`` is not among the validation's
            metrics.
        OSError: Naming the file, if a checkpoint cannot be written.
    """

    priority = "VERY_LOW"

    def __init__(
        self,
        interval: int = -1,
        by_epoch: bool = False,
        max_keep_ckpts: int = -1,
        save_best: str | None = None,
    ) -> None:
        if by_epoch:
            raise UserError(
                "DurableCheckpointHook counts iterations: train with IterBasedTrainLoop, or save "
                "with mmengine's CheckpointHook."
            )
        self.interval = interval
        self.max_keep_ckpts = max_keep_ckpts
        self.save_best = save_best
        self._folder = Path()
        self._trains = False
        self._saved_at = 0  # iteration of the last checkpoint

    def before_train(self, runner: Runner) -> None:
        """Clean up after a killed run, and run a validation that the kill prevented."""
        self._folder = Path(runner.work_dir)
        self._trains, self._saved_at = True, runner.iter
        if is_main_process():
            for file in self._folder.glob(f"*{UNFINISHED}"):
                file.unlink()
            if runner.iter == 0 and any(self._folder.glob(CHECKPOINT_NAME.format("*"))):
                runner.logger.warning(
                    f"{self._folder} holds checkpoints of an earlier run, which this run "
                    "overwrites. To continue the earlier run instead, stop this one and start it "
                    "with --resume."
                )
        self._delete_old(runner)
        loop, validated = runner.train_loop, runner.message_hub.runtime_info.get("iter_validated")
        due = loop.iter == loop.max_iters or loop.iter % loop.val_interval == 0
        due = due and loop.iter >= loop.val_begin and runner.val_loop is not None
        if due and runner.iter > 0 and validated != runner.iter:
            runner.logger.info(f"Validating iteration {runner.iter}, which has no result yet")
            runner.val_loop.run()

    def before_save_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Reduce what is saved to tensors and plain values; leave out what a hook noted besides."""
        hub = checkpoint["message_hub"]
        for key, value in list(hub["runtime_info"].items()):
            try:
                to_plain(value)
            except TypeError as error:
                runner.logger.warning(f"The checkpoint leaves out {key} of the run: {error}.")
                del hub["runtime_info"][key]
        hub["log_scalars"] = {}  # the history of logged values, which a resumed run starts anew
        hub["resumed_keys"] = dict.fromkeys(hub["runtime_info"], True)
        checkpoint.update(to_plain(checkpoint))

    def after_train_iter(self, runner: Runner, *_: Any, **__: Any) -> None:
        """Save after every ``interval`` iterations and after the last one."""
        if self.every_n_train_iters(runner, self.interval) or self.is_last_train_iter(runner):
            self._save(runner, runner.iter + 1)

    def after_val_epoch(self, runner: Runner, metrics: dict[str, float] | None = None) -> None:
        """Save the best checkpoint, and record that this iteration was validated."""
        if not self._trains:  # a validation outside training saves nothing
            return
        runner.message_hub.update_info("iter_validated", runner.iter)
        if self.save_best is not None:
            self._save_best(runner, self.save_best, metrics or {})
        if self._saved_at == runner.iter:
            self._save(runner, runner.iter)

    def _save(self, runner: Runner, iteration: int) -> None:
        name, hub = CHECKPOINT_NAME.format(iteration), runner.message_hub
        if self.max_keep_ckpts > 0:
            others = hub.runtime_info.get("keep_ckpt_ids", [])
            # Include those deleted below, so that a run resumed from here can delete them.
            kept = [*(other for other in others if other != iteration), iteration]
            hub.update_info("keep_ckpt_ids", kept)
        runner.logger.info(f"Saving checkpoint at {iteration} iterations")
        self._saved_at = iteration
        self._write(runner, name, iteration)
        if is_main_process():
            with write_atomically(self._folder / POINTER) as part:
                part.write_text(str(self._folder / name))
        self._delete_old(runner)

    def _delete_old(self, runner: Runner) -> None:
        """Delete checkpoints of this run beyond ``max_keep_ckpts``."""
        kept = runner.message_hub.runtime_info.get("keep_ckpt_ids", [])
        if self.max_keep_ckpts > 0 and len(kept) > self.max_keep_ckpts:
            runner.message_hub.update_info("keep_ckpt_ids", kept[-self.max_keep_ckpts :])
            for step in kept[: -self.max_keep_ckpts]:
                self._delete(CHECKPOINT_NAME.format(step))

    def _save_best(self, runner: Runner, metric: str, metrics: dict[str, float]) -> None:
        if metric not in metrics and metric in UNSEEN_METRICS and "mIoU_S" in metrics:
            metric = "mIoU_S"  # the data has no labels of unseen classes, as the metric has warned
        if metric not in metrics:
            raise UserError(
                f"save_best='{metric}' is not among the validation's metrics: {', '.join(metrics)}."
            )
        hub, score = runner.message_hub, float(metrics[metric])
        best, old = (hub.runtime_info.get(key) for key in ("best_score", "best_file"))
        if math.isnan(score) or (best is not None and score <= best):
            return
        name = f"best_{metric}_{CHECKPOINT_NAME.format(runner.iter)}".replace("/", "_")
        hub.update_info("best_score", score)
        hub.update_info("best_file", name)
        self._write(runner, name, runner.iter, weights_only=True)
        runner.logger.info(f"The best checkpoint is now {name}, with {metric} {score:0.4f}")
        if old and old != name:
            self._delete(old)

    def _write(self, runner: Runner, name: str, iteration: int, weights_only: bool = False) -> None:
        if is_main_process():  # mmengine saves nothing in the other processes
            with write_atomically(self._folder / name) as part:
                runner.save_checkpoint(
                    str(self._folder),
                    part.name,
                    save_optimizer=not weights_only,
                    save_param_scheduler=not weights_only,
                    meta=dict(epoch=runner.epoch, iter=iteration),
                )

    def _delete(self, name: str) -> None:
        """Delete a checkpoint in the work folder; any path to elsewhere is cut off."""
        if is_main_process():
            (self._folder / Path(name).name).unlink(missing_ok=True)


@HOOKS.register_module()
class WorkDirLockHook(Hook):
    """Locks the work folder during training, and stops workers whose launcher was killed.

    The first process of the run holds the lock. Without the second check, processes whose torchrun
    was killed would train on in the background and keep the folder locked.

    Raises:
        BlockingIOError: If another process trains in the folder.
        RuntimeError: After an iteration, if the launcher has died.
    """

    priority = "VERY_HIGH"  # before the hooks that write to the folder

    def __init__(self) -> None:
        self._lock: int | None = None
        self._launcher = os.getppid()

    def before_train(self, runner: Runner) -> None:
        refused: list[Any] = [None]
        if is_main_process():
            try:
                self._lock = lock_folder(runner.work_dir)
            except BlockingIOError as error:
                refused = [str(error)]
        broadcast_object_list(refused)  # otherwise the other processes would wait for the first
        if refused[0] is not None:
            raise BlockingIOError(refused[0])

    def after_train_iter(self, runner: Runner, *_: Any, **__: Any) -> None:
        if is_torchelastic_launched() and os.getppid() != self._launcher:
            raise RuntimeError(f"The launcher (process {self._launcher}) died: training stops.")

    def after_train(self, runner: Runner) -> None:
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None


@HOOKS.register_module()
class MasterLoggerHook(LoggerHook):
    """mmengine's ``LoggerHook``, with two differences.

    It also logs the first iteration and, in a run of one process, whenever nothing was logged for
    30 seconds; on a CPU, ``interval`` iterations can take minutes. And only the first process
    writes the test metrics: if two wrote ``<time>.json`` at once, it would not be valid JSON.
    """

    interval: int
    _last_line = 0.0

    def after_train_iter(
        self, runner: Runner, batch_idx: int, data_batch: Any = None, outputs: Any = None
    ) -> None:
        interval, now = self.interval, monotonic()
        # Several processes must log at the same iterations, because logging gathers from them.
        silent = get_world_size() == 1 and now - self._last_line > MAX_SILENCE
        if runner.iter == 0 or silent:
            self.interval = 1
        if self.every_n_inner_iters(batch_idx, self.interval):
            self._last_line = now
        super().after_train_iter(runner, batch_idx, data_batch, outputs)
        self.interval = interval

    @master_only
    def after_test_epoch(self, runner: Runner, metrics: dict[str, float] | None = None) -> None:
        super().after_test_epoch(runner, metrics)
