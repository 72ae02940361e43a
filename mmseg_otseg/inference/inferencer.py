"""The inferencer: segments images into classes named by the user."""

from __future__ import annotations

import logging
import os
from collections import OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from threading import Lock
from typing import Any, NamedTuple

import numpy as np
import torch
from mmengine.config import Config
from mmengine.device import get_device
from mmengine.logging import print_log

from mmseg_otseg.errors import UserError
from mmseg_otseg.imaging import class_list, read_image
from mmseg_otseg.inference.inspection import Inspection, prompt_names
from mmseg_otseg.inference.loading import (
    NAMES_CONFIG,
    array_pipeline,
    installed_config,
    load_config,
    load_model,
    set_precision,
)
from mmseg_otseg.inference.segmenter import Named, Prediction, Segmenter, check_memory, names_alike
from mmseg_otseg.inference.vocabulary import split_classes, with_classes
from mmseg_otseg.models.segmentors.sliding import ImageMaps
from mmseg_otseg.structures import ClassSplit, SplitLike

VOCABULARIES_KEPT = 8


class _Job(NamedTuple):
    """An image to be segmented."""

    number: int
    image: np.ndarray
    size: tuple[int, int]
    data: dict[str, Any]


class OTSegInferencer(Segmenter):
    """Segments images into classes named in the call.

    Several threads may use one inferencer and may also change the classes of its ``model``; every
    call keeps the vocabulary it started with.

    Args:
        model: Config file, or a loaded config. None: ``configs/training_free/names.py``, CLIP's own
            maps, which need no checkpoint; it downloads CLIP's weights on first use.
        weights: Checkpoint, or ``hf://OWNER/NAME[/FILE]`` for one on the Hugging Face hub; None
            leaves the trainable parts as initialized.
        device: Device to run on; None means a GPU if there is one.
        precision: Precision of CLIP's towers, ``"fp32"``, ``"bf16"`` or ``"fp16"``; None means that
            of the config. A checkpoint works with any of them.

    Raises:
        UserError: If ``model`` is not a config, the config has no test pipeline, the model has no
            vocabulary, or the precision is unknown.
        ConnectionError: If weights are not here yet and cannot be downloaded.

    Examples:
        >>> inferencer = OTSegInferencer()
        >>> inferencer("photos/", classes="road, car, sky", out_dir="out")["classes"]
        ('road', 'car', 'sky')
        >>> inferencer = OTSegInferencer("configs/otseg/voc_512.py", "voc.pth")
        >>> inferencer("photos/", classes="cat, sofa", out_dir="out")["classes"]
        ('cat', 'sofa')
    """

    def __init__(
        self,
        model: str | os.PathLike | Config | Mapping[str, Any] | None = None,
        weights: str | os.PathLike | None = None,
        device: str | None = None,
        precision: str | None = None,
    ) -> None:
        if model is None:
            if weights is not None:
                raise UserError(f"give the config of the checkpoint {weights} too")
            model = installed_config(NAMES_CONFIG)
        self.cfg = load_config(model)
        named = getattr(model, "filename", None) if isinstance(model, Mapping | Config) else model
        self._source = {"config": named and str(named), "weights": weights and str(weights)}
        if precision is not None:
            set_precision(self.cfg.model, precision)
        self.pipeline = array_pipeline(self.cfg)
        self.model = load_model(self.cfg, weights).to(device or get_device()).eval()
        self._lock = Lock()
        self._own: Any = None
        self._kept: OrderedDict[Any, Any] = OrderedDict()  # models by vocabulary, latest last

    def report(self, message: str, level: int = logging.INFO) -> None:
        print_log(message, "current", level=level)

    def predict_all(
        self,
        model: Any,
        images: Sequence[str | np.ndarray],
        batch_size: int = 1,
        refine: bool | None = None,
    ) -> Iterator[Prediction]:
        """Predict class maps at the size that the test pipeline gives each image."""
        batch: list[_Job] = []
        for number, source in enumerate(images):
            try:
                job = self._job(number, *read_image(source))
            except Exception as error:  # one bad image must not stop the others
                yield from _predict(model, batch, refine)
                batch = []
                yield Prediction(number, np.empty(0), (0, 0), error)
                continue
            if batch and (len(batch) == batch_size or _shapes(job) != _shapes(batch[0])):
                yield from _predict(model, batch, refine)
                batch = []
            batch.append(job)
        yield from _predict(model, batch, refine)

    def inspect(
        self,
        image: str | os.PathLike | np.ndarray,
        classes: str | Sequence[str] | SplitLike | None = None,
        refine: bool | None = None,
    ) -> Inspection:
        """Inspect one image: the value of every class at every position, and the transport plan.

        Args:
            image: A path, or an array as in :meth:`segment`.
            classes, refine: As in :meth:`segment`.

        Returns:
            The model's values before thresholds and the bias of seen classes. The plan is computed
            when first used, on the whole image.

        Raises:
            UserError: If the image cannot be read or segmented, or the class names are invalid.
        """
        named = self.named(classes)
        source = image if isinstance(image, np.ndarray) else os.fspath(image)
        (prediction,) = self.predict_all(named.model, [source], 1, refine)
        if isinstance(prediction.values, Exception):
            what = "the image" if isinstance(source, np.ndarray) else source
            raise UserError(f"cannot segment {what}: {prediction.values}") from prediction.values
        neck, bias = named.model.neck, getattr(named.model.decode_head, "seen_bias", 0.0)
        seen = np.array([name in neck.seen_names for name in named.names])
        values = prediction.values + np.float32(bias) * seen[:, None, None]
        return Inspection(
            image=prediction.image,
            size=prediction.size,
            names=named.names,
            palette=named.palette,
            seen=seen,
            seen_bias=bias,
            values=values,
            prompts=prompt_names(neck.text),
            align_corners=named.align_corners,
            plan=partial(self._plan, named.model, prediction.image),
            warning=names_alike(named.texts, named.text),
        )

    @torch.no_grad()
    def _plan(self, model: Any, image: np.ndarray) -> np.ndarray | None:
        """The plan (K, N, H, W) of each class's first name in an RGB image; None without one."""
        if not hasattr(model.decode_head, "plan"):
            return None
        job = self._job(0, image, image.shape[:2])
        packed = {key: [job.data[key]] for key in ("inputs", "data_samples")}
        inputs = model.data_preprocessor(packed, False)["inputs"]
        split, plan = model.neck.text.split, model.decode_head.plan(model.extract_feat(inputs))[0]
        firsts = [split.texts.index(name) for name in split.classes]
        return plan[firsts].float().cpu().numpy()

    def _job(self, number: int, image: np.ndarray, size: tuple[int, int]) -> _Job:
        data = self.pipeline({"img": np.ascontiguousarray(image[..., ::-1])})
        if data is None:
            raise UserError("the test pipeline returned no result")
        return _Job(number, image, size, data)

    def named(self, classes: str | Sequence[str] | SplitLike | None) -> Named:
        """The model with its own vocabulary; models of the most recent calls are cached."""
        model = self._model_for(classes)
        meta, text = model.dataset_meta, model.neck.text
        table = text().detach().float().cpu().numpy()
        corners = model.align_corners
        return Named(model, meta["classes"], meta["palette"], corners, text.split.texts, table)

    def settings(self, model: Any, refine: bool | None) -> dict[str, Any]:
        """The config, the checkpoint, CLIP, the seen-class bias, and whether masks are refined."""
        return {
            **self._source,
            "clip": self.cfg.model.get("clip"),
            "seen_bias": float(getattr(model.decode_head, "seen_bias", 0.0)),
            "refine": model.test_cfg.get("refine", False) if refine is None else refine,
        }

    def _model_for(self, classes: str | Sequence[str] | SplitLike | None) -> Any:
        if isinstance(classes, Mapping):
            classes = ClassSplit.build(classes)
        elif classes is not None and not isinstance(classes, ClassSplit):
            classes = tuple(class_list(classes, split_classes()))
        model = with_classes(self.model)
        own = model.neck.text
        if classes is None or classes == own.split.full_names:
            return model
        names = classes.names if isinstance(classes, ClassSplit) else None  # no part of its hash
        asked = (classes, names, self.model.data_preprocessor.device)
        with self._lock:
            if self._own is not own:
                self._own = own
                self._kept.clear()
            if asked not in self._kept:
                self._kept[asked] = with_classes(model, classes)
            self._kept.move_to_end(asked)
            if len(self._kept) > VOCABULARIES_KEPT:
                self._kept.popitem(last=False)
            return self._kept[asked]


def _predict(model: Any, batch: list[_Job], refine: bool | None) -> list[Prediction]:
    """Class maps of images of equal size; if the model fails, the error for each of them."""
    if not batch:
        return []
    packed = {key: [job.data[key] for job in batch] for key in ("inputs", "data_samples")}
    options = {} if refine is None else {"refine": refine}  # mmseg's own segmentors take none
    try:
        with torch.no_grad():
            data = model.data_preprocessor(packed, False)
            check_memory(len(model.neck.text.split.texts), data["inputs"].shape[2:])
            metas = [sample.metainfo for sample in data["data_samples"]]
            maps = model.inference(data["inputs"], metas, **options).float().cpu()
        if not maps.isfinite().all():
            raise UserError("the model's values are not finite: its weights may be damaged")
    except Exception as error:  # for example, images too small for the model, or out of memory
        return [Prediction(*job[:3], error) for job in batch]
    return [
        Prediction(*job[:3], ImageMaps.of(values).upright(meta).whole().numpy())
        for job, values, meta in zip(batch, maps, metas)
    ]


def _shapes(job: _Job) -> tuple[Any, Any]:
    """The shapes that must be equal for images to share a batch."""
    return job.data["inputs"].shape, job.data["data_samples"].metainfo.get("ori_shape")
