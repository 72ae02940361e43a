"""Pictures and class names in, masks and overlays out."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmengine.logging import print_log
from mmseg.apis import MMSegInferencer
from mmseg.structures import SegDataSample
from PIL import Image

from mmseg_otseg.models.text.prompts import SplitLike

from .vocabulary import palette_for, set_classes

Picture = str | os.PathLike | np.ndarray
SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff", ".webp", ".ppm")
NONE_NAME = "none of these"


class OTSegInferencer(MMSegInferencer):
    """mmseg's inferencer for classes that are named in the call.

    Pictures that cannot be read are left out, named in the log and in the result.

    Args:
        model: Config file, or a loaded config.
        weights: Checkpoint.
        device: Where to run; None is the GPU if there is one.
        kwargs: As in ``MMSegInferencer``.

    Example:
        >>> inferencer = OTSegInferencer("configs/otseg/voc_512.py", "voc.pth")
        >>> inferencer("photos/", classes=["cat", "sofa"], out_dir="out")["classes"]
        ('cat', 'sofa')
    """

    forward_kwargs = MMSegInferencer.forward_kwargs | {"none_below", "keep_logits"}

    def __init__(
        self,
        model: Any,
        weights: str | None = None,
        device: str | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(model=model, weights=weights, device=device, **kwargs)
        self.skipped: list[str] = []
        names = self.model.neck.text.split.classes
        meta = self.model.dataset_meta  # of the checkpoint, which may know another vocabulary
        palette = palette_for(names, meta if tuple(meta["classes"]) == names else None)
        self.model.dataset_meta = {"classes": names, "palette": palette}

    def __call__(
        self,
        inputs: Picture | Sequence[Picture],
        classes: Sequence[str] | SplitLike | None = None,
        none_below: float | None = None,
        return_datasamples: bool = False,
        **kwargs: Any,
    ) -> Any:
        """Segment pictures.

        Args:
            inputs: A path, a folder (its pictures, sorted), a picture as an array (BGR, 0..255),
                or a list of paths and arrays.
            classes: Class names, see :func:`set_classes`; None is what the model knows already.
            none_below: Pixels whose best value (a probability, less the bias for seen classes) is
                below this become the extra class "none of these", of index K.
            return_datasamples: Return mmseg's data samples, with logits, instead of a dict.
            kwargs: As in ``MMSegInferencer``: ``batch_size``, ``out_dir`` (masks go to ``pred/``,
                overlays to ``vis/``), ``return_vis``, ``show``, ``opacity``, ...

        Returns:
            ``predictions``: class indices (H, W) for one picture, a list of them for several;
            ``visualization``: overlays likewise (RGB), if asked for; ``classes``: names by index;
            ``skipped``: the pictures that could not be read.

        Raises:
            ValueError: If no picture could be read, or the class names make no sense.
        """
        if classes is not None and not self._knows(classes):
            set_classes(self.model, classes)
        meta = self.model.dataset_meta
        if none_below is not None:
            names = (*meta["classes"], NONE_NAME)
            self.model.dataset_meta = {"classes": names, "palette": [*meta["palette"], [0, 0, 0]]}
        self.skipped = []
        try:
            results = super().__call__(
                inputs,
                return_datasamples=return_datasamples,
                none_below=none_below,
                keep_logits=return_datasamples,
                **kwargs,
            )
            if not return_datasamples:
                names = tuple(self.model.dataset_meta["classes"])
                results.update(classes=names, skipped=list(self.skipped))
            return results
        finally:
            self.model.dataset_meta = meta

    def preprocess(self, inputs: list, batch_size: int = 1, **kwargs: Any) -> Iterator[Any]:
        """Load pictures in batches; those that cannot be read are taken out of ``inputs``."""
        total = len(inputs)
        batch: list[dict] = []
        for data in self._readable(inputs):
            # Only pictures of one size can share a batch.
            if batch and (
                len(batch) == batch_size or data["inputs"].shape != batch[0]["inputs"].shape
            ):
                yield self.collate_fn(batch)
                batch = []
            batch.append(data)
        if batch:
            yield self.collate_fn(batch)
        if not inputs:
            raise ValueError(
                f"none of the {total} pictures could be read: {', '.join(self.skipped[:5])}"
                if total
                else "there is no picture to segment"
            )

    @torch.no_grad()
    def forward(
        self, inputs: Any, none_below: float | None = None, keep_logits: bool = False, **kwargs: Any
    ) -> list[SegDataSample]:
        """Predict a batch; the results are on the CPU, their logits (K, H, W) only if asked for."""
        samples = []
        for sample in super().forward(inputs):
            if none_below is not None:
                logits = sample.seg_logits.data
                sample.pred_sem_seg.data[logits.amax(0, keepdim=True) < none_below] = len(logits)
            if not keep_logits:  # a folder of large pictures would not fit into memory
                del sample.seg_logits
            samples.append(sample.cpu())
        return samples

    def postprocess(
        self,
        preds: list[SegDataSample],
        visualization: list[np.ndarray] | None,
        return_datasample: bool = False,
        pred_out_dir: str = "",
    ) -> Any:
        """Write the masks, under the names of their pictures, and pack the results."""
        if pred_out_dir:
            self._write_masks(preds, Path(pred_out_dir))
        return super().postprocess(preds, visualization, return_datasample)

    def _write_masks(self, preds: list[SegDataSample], folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        written: set[str] = set()
        for index, pred in enumerate(preds):
            path = Path(pred.metainfo.get("img_path") or f"{index:08d}")
            name = path.name if path.stem in written else path.stem
            written.add(name)
            mask = pred.pred_sem_seg.data[0].numpy()
            kind = np.uint8 if len(self.model.dataset_meta["classes"]) <= 256 else np.uint16
            Image.fromarray(mask.astype(kind)).save(folder / f"{name}.png")

    def _inputs_to_list(self, inputs: Any) -> list:
        """Paths and arrays; the pictures of a folder, sorted."""
        if isinstance(inputs, os.PathLike):
            inputs = os.fspath(inputs)
        if isinstance(inputs, str) and os.path.isdir(inputs):
            files = sorted(path for path in Path(inputs).iterdir() if path.is_file())
            listed = [str(path) for path in files if path.suffix.lower() in SUFFIXES]
            if not listed:
                raise ValueError(f"the folder {inputs} holds no picture ({', '.join(SUFFIXES)})")
            return listed
        several = isinstance(inputs, (list, tuple))
        return [
            os.fspath(item) if isinstance(item, os.PathLike) else item
            for item in (inputs if several else [inputs])
        ]

    def _readable(self, inputs: list) -> Iterator[Any]:
        """Loaded pictures; those that cannot be loaded are taken out of the list."""
        index = 0
        while index < len(inputs):
            try:
                data = self.pipeline(inputs[index])
                if data is None:
                    raise ValueError("it could not be decoded")
            except Exception as error:  # each decoder has errors of its own
                item = inputs.pop(index)
                name = item if isinstance(item, str) else f"array of shape {np.shape(item)}"
                reason = " ".join(str(error).split()) or type(error).__name__
                self.skipped.append(name)
                print_log(f"skipped {name}: {reason}", "current", level=logging.WARNING)
                continue
            index += 1
            yield data

    def _knows(self, classes: Any) -> bool:
        """Whether these names are the model's vocabulary already."""
        if isinstance(classes, (str, Mapping)) or not isinstance(classes, Sequence):
            return False
        return tuple(classes) == self.model.neck.text.split.classes
