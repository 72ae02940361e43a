"""The inferencer: segments images into classes named by the user."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from functools import lru_cache, partial
from threading import Lock
from typing import Any

import numpy as np
import torch
from mmengine.config import Config
from mmengine.device import get_device

from mmseg_otseg.errors import UserError
from mmseg_otseg.imaging import class_list, read_image
from mmseg_otseg.inference.inspection import Inspection
from mmseg_otseg.inference.loading import (
    NAMES_CONFIG,
    array_pipeline,
    installed_config,
    load_config,
    load_model,
)
from mmseg_otseg.inference.segmenter import (
    ModelForClasses,
    Segmenter,
    check_memory,
    same_embedding_warning,
)
from mmseg_otseg.inference.vocabulary import copy_with_classes
from mmseg_otseg.models.clip import check_precision
from mmseg_otseg.models.segmentors import change_clip_config
from mmseg_otseg.models.segmentors.sliding import ImageMaps
from mmseg_otseg.structures import ClassSplit, SplitLike
from mmseg_otseg.structures.class_split import KNOWN_CLASSES

VOCABULARIES_KEPT = 8


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
            vocabulary, the precision is unknown, or the device cannot be used.
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
        device = device or get_device()
        try:
            torch.empty(1, device=device)
        except Exception as error:  # each kind of device has errors of its own
            reason = str(error).splitlines()[0]
            raise UserError(f"the device {device!r} cannot be used: {reason}") from error
        self.cfg = load_config(model)
        named = getattr(model, "filename", None) if isinstance(model, Mapping | Config) else model
        self._source = {"config": named and str(named), "weights": weights and str(weights)}
        if precision is not None:
            check_precision(precision)
            if not change_clip_config(self.cfg.model, precision=precision):
                raise UserError(f"precision={precision!r} needs a model with a `clip` setting")
        self.pipeline = array_pipeline(self.cfg)
        self.model = load_model(self.cfg, weights).to(device).eval()
        self._lock = Lock()
        # Keyed by all that a model of other classes is made from.
        self._renamed = lru_cache(VOCABULARIES_KEPT)(
            lambda classes, *changes: copy_with_classes(self.model, classes)
        )

    @torch.no_grad()
    def predict(self, image: np.ndarray, model: Any, refine: bool | None = None) -> np.ndarray:
        """Class maps (K, h, w) of an RGB image at the size that the test pipeline gives it."""
        inputs, metas = self._inputs(image, model)
        check_memory(len(model.neck.text.split.texts), inputs.shape[2:])
        options = {} if refine is None else {"refine": refine}  # mmseg's own segmentors take none
        values = model.inference(inputs, metas, **options).float().cpu()[0]
        if not values.isfinite().all():
            raise UserError("the model's values are not finite: its weights may be damaged")
        return ImageMaps.of(values).upright(metas[0]).whole().numpy()

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
            The model's values, before any threshold and without the bias of seen classes. The plan
            is computed when first used, on the whole image.

        Raises:
            UserError: If the image cannot be read or segmented, or the class names are invalid.
        """
        named = self.for_classes(classes)
        pixels, size = read_image(image)
        values = self.predict(pixels, named.model, refine)
        neck, bias = named.model.neck, getattr(named.model.decode_head, "seen_bias", 0.0)
        seen = np.array([name in neck.seen_names for name in named.names])
        values = values + np.float32(bias) * seen[:, None, None]
        templates = tuple(getattr(neck.text, "templates", ()))  # some prompts have none
        numbers = tuple(f"prompt {number + 1}" for number in range(neck.text.num_prompts))
        return Inspection(
            image=pixels,
            size=size,
            names=named.names,
            palette=named.palette,
            seen=seen,
            seen_bias=bias,
            values=values,
            prompts=templates if len(templates) == len(numbers) else numbers,
            align_corners=named.align_corners,
            plan=partial(self._plan, named.model, pixels),
            warning=named.warning,
        )

    @torch.no_grad()
    def _plan(self, model: Any, image: np.ndarray) -> np.ndarray | None:
        """The plan (K, N, H, W) of each class's first name in an RGB image; None without one."""
        if not hasattr(model.decode_head, "plan"):
            return None
        inputs, _ = self._inputs(image, model)
        split, plan = model.neck.text.split, model.decode_head.plan(model.extract_feat(inputs))[0]
        firsts = [split.texts.index(name) for name in split.classes]
        return plan[firsts].float().cpu().numpy()

    def _inputs(self, image: np.ndarray, model: Any) -> tuple[torch.Tensor, list[dict]]:
        """The input of the model, (1, 3, h, w), and its meta information."""
        packed = self.pipeline({"img": np.ascontiguousarray(image[..., ::-1])})
        data = model.data_preprocessor({key: [value] for key, value in packed.items()}, False)
        return data["inputs"], [sample.metainfo for sample in data["data_samples"]]

    def for_classes(self, classes: str | Sequence[str] | SplitLike | None) -> ModelForClasses:
        """The model with its own vocabulary; models of the most recent calls are cached."""
        model = self._model_for(classes)
        meta, text = model.dataset_meta, model.neck.text
        return ModelForClasses(
            model=model,
            names=meta["classes"],
            palette=meta["palette"],
            align_corners=model.align_corners,
            warning=same_embedding_warning(text.split.texts, text().detach().float().cpu().numpy()),
        )

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
            classes = tuple(class_list(classes, KNOWN_CLASSES))
        model = copy_with_classes(self.model)
        if classes is None or classes == model.neck.text.split.joined_names:
            return model
        names = classes.names if isinstance(classes, ClassSplit) else None  # no part of its hash
        device = self.model.data_preprocessor.device
        with self._lock:  # encoding names may build a CLIP, for one thread at a time
            return self._renamed(classes, names, self.model.neck, device)
