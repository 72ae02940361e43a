"""What a run logs: metrics, labeled pixels, and overlays of test predictions."""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence
from pathlib import Path
from time import monotonic
from typing import Any

import numpy as np
import torch
from mmengine.dist import all_reduce, get_world_size, master_only
from mmengine.hooks import Hook, LoggerHook
from mmengine.logging import print_log
from mmengine.runner import Runner
from mmseg.registry import HOOKS
from mmseg.structures import SegDataSample

from mmseg_otseg.imaging import ImageError, paint, palette_for, read_image
from mmseg_otseg.imaging.outputs import output_names, save_overlay

MAX_SILENCE = 30.0  # seconds


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


@HOOKS.register_module()
class OverlayHook(Hook):
    """Writes ``out_dir/NAME.jpg`` for every test image: labels and prediction side by side.

    NAME is the image's path relative to the common folder of all test images, without the suffix.
    Each process writes the overlays of the images that it tested. An image without labels gets only
    its prediction; an image that cannot be read is skipped with a warning.

    Args:
        out_dir: Output folder; it is created when the first overlay is written.
        opacity: Opacity of the class colors, 0..1.
    """

    def __init__(self, out_dir: str | os.PathLike, opacity: float = 0.6) -> None:
        self.out_dir, self.opacity = Path(out_dir), opacity
        self._files: dict[str, Path] = {}
        self._names: Sequence[str] = ()
        self._palette: list[list[int]] = []

    def before_test(self, runner: Runner) -> None:
        dataset: Any = runner.test_dataloader.dataset
        paths = [dataset.get_data_info(index)["img_path"] for index in range(len(dataset))]
        names = output_names(paths)
        self._files = {path: self.out_dir / f"{name}.jpg" for path, name in zip(paths, names)}
        self._names = dataset.metainfo["classes"]
        self._palette = palette_for(self._names, dataset.metainfo)

    def after_test_iter(
        self,
        runner: Runner,
        batch_idx: int,
        data_batch: Any = None,
        outputs: Sequence[SegDataSample] | None = None,
    ) -> None:
        for sample in outputs or ():
            try:
                image, _ = read_image(sample.img_path)
            except (ImageError, OSError) as error:
                runner.logger.warning(f"no overlay of {sample.img_path}: {error}")
                continue
            masks = [sample.get(name) for name in ("gt_sem_seg", "pred_sem_seg")]
            painted = [self._paint(image, mask) for mask in masks if mask is not None]
            save_overlay(np.hstack(painted), self._files[sample.img_path])

    def _paint(self, image: np.ndarray, mask: Any) -> np.ndarray:
        # Values that are not classes (255 = ignored) stay unpainted.
        labels = mask.data[0].cpu().numpy().astype(np.uint16)
        return paint(image, labels, self._names, self._palette, self.opacity)
