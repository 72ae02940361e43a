"""Logs how many training pixels have the label of a seen class."""

from __future__ import annotations

import logging
from typing import Any

import torch
from mmengine.dist import all_reduce
from mmengine.hooks import Hook, LoggerHook
from mmengine.logging import print_log
from mmengine.runner import Runner
from mmseg.registry import HOOKS


@HOOKS.register_module()
class SeenPixelsHook(Hook):
    """Logs ``seen_pixels``: the percentage of training pixels with the label of a seen class.

    The percentage is of all pixels in an interval of the logger hook, including ignored ones. An
    interval without any such label causes a warning. The hook does nothing for data without a class
    split.
    """

    priority = "NORMAL"  # before the logger hook, which writes the number

    def before_train(self, runner: Runner) -> None:
        """Look up the seen classes and the interval."""
        meta = getattr(runner.train_dataloader.dataset, "metainfo", {})
        self.seen = torch.tensor(list(meta.get("seen") or ()), dtype=torch.int64)
        hooks = [hook for hook in runner.hooks if isinstance(hook, LoggerHook)]
        self.interval = hooks[0].interval if hooks else 50
        self.pixels = torch.zeros(2, dtype=torch.int64)

    def after_train_iter(
        self, runner: Runner, batch_idx: int, data_batch: Any = None, outputs: Any = None
    ) -> None:
        """Count the batch's pixels; at the end of an interval, log the percentage."""
        if not len(self.seen) or not isinstance(data_batch, dict):
            return
        for sample in data_batch.get("data_samples", ()):
            label = sample.gt_sem_seg.data.cpu()
            seen = torch.isin(label, self.seen.to(label.dtype))
            self.pixels += torch.tensor([int(seen.sum()), label.numel()])
        if not self.every_n_train_iters(runner, self.interval):
            return
        all_reduce(self.pixels)
        seen, total = self.pixels.tolist()
        self.pixels.zero_()
        runner.message_hub.update_scalar("train/seen_pixels", 100 * seen / max(total, 1))
        if not seen:
            print_log(
                f"no pixel of the last {self.interval} iterations has the label of a seen class: "
                "nothing is learned. Check the data with tools/analysis/check_data.py CONFIG.",
                "current",
                logging.WARNING,
            )
