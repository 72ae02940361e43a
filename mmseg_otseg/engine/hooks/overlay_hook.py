"""Overlays of test predictions, in files named after their images."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from mmengine.hooks import Hook
from mmengine.runner import Runner
from mmseg.registry import HOOKS
from mmseg.structures import SegDataSample

from mmseg_otseg.imaging import ImageError, paint, palette_for, read_image
from mmseg_otseg.imaging.outputs import output_names, save_overlay


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
