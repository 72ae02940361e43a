"""Checkpoints that stay usable if the run is killed at any moment."""

from __future__ import annotations

from collections import deque
from pathlib import Path
from typing import Any

from mmengine.dist import broadcast_object_list, is_main_process
from mmengine.hooks import CheckpointHook
from mmengine.runner import Runner
from mmseg.registry import HOOKS

from mmseg_otseg.engine.checkpoint import read_checkpoint
from mmseg_otseg.engine.run_folder import UNFINISHED, latest_checkpoint, whole_file
from mmseg_otseg.errors import UserError


@HOOKS.register_module()
class DurableCheckpointHook(CheckpointHook):
    """mmengine's ``CheckpointHook``, for runs that may be killed at any moment.

    - A file is written under a temporary name and renamed once it is completely on disk.
    - An old checkpoint is deleted only after the new one exists, and only in the run's own folder.
    - After a validation, the checkpoint of that iteration is written again with the result. A
      resumed run whose checkpoint lacks the result of a validation that was due validates first.
    - The best checkpoint holds its own score. A resumed run reads both from the folder, so a better
      checkpoint saved after the resumed one is not replaced by a worse one.
    - A run that resumes without naming a checkpoint uses the latest readable one.

    Args:
        options: Options of ``CheckpointHook``; ``out_dir`` must be a local folder.

    Raises:
        UserError: If the folder is not local, ``save_best`` names a metric that the validation
            does not report, or a run resumes and none of its checkpoints can be read.
    """

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        if self.file_client_args or self.backend_args or "://" in str(self.out_dir):
            raise UserError(
                "DurableCheckpointHook writes to local folders only: leave out backend_args and "
                "file_client_args, or use CheckpointHook."
            )
        self._training = False

    def before_run(self, runner: Runner) -> None:
        """Choose the checkpoint to resume from if none was given."""
        if runner._resume and runner._load_from is None:
            runner._load_from = latest_checkpoint(runner.work_dir)
            runner._resume = runner._load_from is not None

    def before_train(self, runner: Runner) -> None:
        """Restore the state from the folder, and run a validation that a kill prevented."""
        info = runner.message_hub.runtime_info
        if "keep_ckpt_ids" in info:  # mmengine deletes files with these numbers in their names
            info["keep_ckpt_ids"] = [int(step) for step in info["keep_ckpt_ids"]]
        super().before_train(runner)
        self._training = True
        if is_main_process():
            self._tidy(runner)
        if runner.iter == 0:
            return
        self.last_ckpt = str(self._folder / self._name(runner))
        for indicator, rule in self._watched():
            self._recall_best(runner, indicator, rule)
        if self._lacks_validation(runner):
            runner.logger.info(f"Validating iteration {runner.iter}, which has no result yet")
            runner.val_loop.run()

    def after_val_epoch(self, runner: Runner, metrics: dict[str, float]) -> None:
        """Save the best checkpoint, and record that this iteration was validated."""
        if self._training:  # a validation outside training saves nothing
            runner.message_hub.update_info("validated_iter", runner.iter)
            super().after_val_epoch(runner, metrics)

    @property
    def _folder(self) -> Path:
        return Path(self.out_dir)

    def _name(self, runner: Runner) -> str:
        return self.filename_tmpl.format(runner.epoch if self.by_epoch else runner.iter)

    def _best_name(self, indicator: str, name: str) -> str:
        return f"best_{indicator}_{name}".replace("/", "_")

    def _watched(self) -> list[tuple[str, str]]:
        """The metrics whose best checkpoint is kept, each with 'greater' or 'less'."""
        return list(zip(self.key_indicators, self.rules)) if self.save_best else []

    def _keys(self, indicator: str) -> tuple[str, str]:
        """mmengine's keys for the best score and the best file."""
        suffix = "" if len(self.key_indicators) == 1 else f"_{indicator}"
        return f"best_score{suffix}", f"best_ckpt{suffix}"

    def _tidy(self, runner: Runner) -> None:
        """Remove unfinished files of a killed run; warn if a new run overwrites checkpoints."""
        checkpoints = self.filename_tmpl.format("*")
        for pattern in (checkpoints, self._best_name("*", checkpoints)):
            for file in self._folder.glob(pattern + UNFINISHED):
                file.unlink()
        Path(runner.work_dir, "last_checkpoint" + UNFINISHED).unlink(missing_ok=True)
        if runner.iter == 0 and any(self._folder.glob(checkpoints)):
            runner.logger.warning(
                f"{self.out_dir} holds checkpoints of an earlier run, which this run overwrites. "
                "To continue the earlier run instead, stop this one and start it with --resume."
            )

    def _recall_best(self, runner: Runner, indicator: str, rule: str) -> None:
        """Find the best checkpoint in the folder, and record it and its score.

        It is either the one recorded in the resumed checkpoint or one written later.
        """
        if indicator == "auto":  # the first validation determines the metric
            return
        score_key, file_key = self._keys(indicator)
        info = runner.message_hub.runtime_info
        best: list[Any] = [None, None]
        if is_main_process():
            known = self._folder / Path(str(info.get(file_key))).name
            scores: dict[Path, float] = {}
            pattern = self._best_name(indicator, self.filename_tmpl.format("*"))
            for file in self._folder.glob(pattern):
                try:
                    saved = read_checkpoint(file, "cpu")
                    if file == known or saved["meta"]["iter"] >= runner.iter:
                        scores[file] = float(saved["message_hub"]["runtime_info"][score_key])
                except (ValueError, KeyError, TypeError) as error:
                    runner.logger.warning(f"Skipped the best checkpoint {file}: {error}")
            if scores:
                file = (max if rule == "greater" else min)(scores, key=lambda file: scores[file])
                best = [scores[file], str(file)]
                if known in scores and known != file:
                    self._remove(known)
        broadcast_object_list(best)
        self._note_best(runner, indicator, *best)

    def _note_best(self, runner: Runner, indicator: str, score: Any, file: str | None) -> None:
        for key, value in zip(self._keys(indicator), (score, file)):
            runner.message_hub.update_info(key, value)
        if len(self.key_indicators) == 1:
            self.best_ckpt_path = file
        else:
            self.best_ckpt_path_dict[indicator] = file

    def _lacks_validation(self, runner: Runner) -> bool:
        """Whether a validation was due after the last iteration but is missing."""
        loop = runner.train_loop
        step, last = (loop.epoch, loop.max_epochs) if self.by_epoch else (loop.iter, loop.max_iters)
        validated = runner.message_hub.runtime_info.get("validated_iter")
        if runner.val_loop is None or step < loop.val_begin or validated == runner.iter:
            return False
        loop._decide_current_val_interval()
        return step == last or step % loop.val_interval == 0

    def _save_checkpoint_with_step(self, runner: Runner, step: int, meta: dict[str, Any]) -> None:
        name = self.filename_tmpl.format(step)
        self.last_ckpt = str(self._folder / name)
        runner.message_hub.update_info("last_ckpt", self.last_ckpt)
        kept: list[int] = []
        if self.max_keep_ckpts > 0:
            kept = [*(other for other in self.keep_ckpt_ids if other != step), step]
            # Include those deleted below, so that a run resumed from here can delete them.
            runner.message_hub.update_info("keep_ckpt_ids", kept)
        self._write(
            runner,
            name,
            meta,
            save_optimizer=self.save_optimizer,
            save_param_scheduler=self.save_param_scheduler,
            **self.args,
        )
        if is_main_process():
            with whole_file(Path(runner.work_dir) / "last_checkpoint") as part:
                part.write_text(self.last_ckpt)
            for other in kept[: -self.max_keep_ckpts]:
                self._remove(self._folder / self.filename_tmpl.format(other))
        if kept:
            self.keep_ckpt_ids: deque[int] = deque(kept, self.max_keep_ckpts)
            runner.message_hub.update_info("keep_ckpt_ids", list(self.keep_ckpt_ids))

    def _save_best_checkpoint(self, runner: Runner, metrics: dict[str, float]) -> None:
        if self.save_best and "auto" in self.key_indicators:
            self._init_rule(self.rules, [next(iter(metrics))])
        meta = dict(epoch=runner.epoch, iter=runner.iter)
        improved = False
        for indicator, rule in self._watched():
            if indicator not in metrics:
                raise UserError(
                    f"save_best='{indicator}' is not among the validation's metrics: "
                    f"{', '.join(metrics)}."
                )
            name = self._best_name(indicator, self._name(runner))
            file, score = str(self._folder / name), metrics[indicator]
            score_key, file_key = self._keys(indicator)
            info = runner.message_hub.runtime_info
            before, best = info.get(file_key), info.get(score_key)
            best = self.init_value_map[rule] if best is None else best
            # Repeated validation: the run was killed before this iteration's checkpoint was saved.
            again = file == before and score == best
            if not again and not self.is_better_than[indicator](score, best):
                continue
            improved = True
            self._note_best(runner, indicator, score, file)
            self._write(runner, name, meta, save_optimizer=False, save_param_scheduler=False)
            runner.logger.info(f"The best checkpoint is now {name}, with {indicator} {score:0.4f}")
            if before and before != file and is_main_process():
                self._remove(Path(before))
        repeated = self.last_ckpt is not None and Path(self.last_ckpt).name == self._name(runner)
        if repeated or (improved and self.last_ckpt is not None):
            self._save_checkpoint_with_step(
                runner, runner.epoch if self.by_epoch else runner.iter, meta
            )

    def _write(self, runner: Runner, name: str, meta: dict[str, Any], **options: Any) -> None:
        if is_main_process():  # mmengine saves nothing in the other processes
            with whole_file(self._folder / name) as part:
                runner.save_checkpoint(str(self._folder), part.name, meta=meta, **options)

    def _remove(self, file: Path) -> None:
        """Delete a checkpoint in this folder; leave any other path alone."""
        if file.parent == self._folder:
            file.unlink(missing_ok=True)
