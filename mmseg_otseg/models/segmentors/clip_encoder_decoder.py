"""A segmentor whose parts share one CLIP and one class split."""

from __future__ import annotations

import inspect
import logging
from collections.abc import Mapping
from typing import Any

import torch
from mmengine.config import ConfigDict
from mmengine.logging import print_log
from mmengine.structures import PixelData
from mmseg.models.segmentors import EncoderDecoder
from mmseg.registry import MODELS
from mmseg.utils import OptSampleList, SampleList
from torch import Tensor, nn

from mmseg_otseg.errors import UserError
from mmseg_otseg.models.clip import clip_embed_dim, resolve_clip, shared_clip
from mmseg_otseg.structures.class_split import ClassSplit, SplitLike

from .sliding import slide_in_batches


@MODELS.register_module()
class CLIPEncoderDecoder(EncoderDecoder):
    """mmseg's ``EncoderDecoder``, which hands one CLIP and one class split to all its parts.

    A config then names CLIP and the class split in one place each, and one line changes either:
    ``model = dict(clip=dict(model="ViT-L-14"))``, ``model = dict(split=dict(unseen=["cow"]))``.
    In a run the datasets take the split from here as well, see
    :mod:`mmseg_otseg.engine.loops`.

    An ``EncoderDecoder`` whose parts are all given ``clip`` and ``split`` is the same model with
    the same state dict, with two differences. mmseg takes a single class for foreground against
    background, while here it is a vocabulary of one class. And in the ``slide`` mode of
    ``test_cfg``, ``window_batch`` (4) windows run at a time.

    Args:
        clip: ``dict(model=..., pretrained=...)``, see :func:`~mmseg_otseg.models.clip.load_clip`.
            It goes to the parts that take a ``clip`` and have none of their own.
        backbone: Config of the backbone.
        decode_head: Config of the head. Without ``num_classes`` and ``num_levels`` it has those of
            the split and of the backbone.
        neck: Config of the neck. Without ``adapters`` it has one for each of the backbone's levels,
            if the backbone does not project them.
        split: The class split, see :class:`~mmseg_otseg.structures.ClassSplit`; None if the neck's
            text prompts have one of their own.
        data_preprocessor: Config of the data preprocessor. If its ``mean`` and ``std`` are None,
            they are those that the CLIP was trained with.
        kwargs: As in ``EncoderDecoder``.

    Raises:
        UserError: If the split makes no sense, or a part is configured for another one; if mean
            and standard deviation are given both here and in ``clip``, or only one of them is.
    """

    pixels: Tensor

    def __init__(
        self,
        clip: Mapping[str, Any],
        backbone: Mapping[str, Any],
        decode_head: Mapping[str, Any],
        neck: Mapping[str, Any] | None = None,
        split: SplitLike | None = None,
        data_preprocessor: Mapping[str, Any] | nn.Module | None = None,
        **kwargs: Any,
    ) -> None:
        backbone, decode_head = _with_clip(backbone, clip), _with_clip(decode_head, clip)
        if _takes(decode_head, "embed_dim"):
            width = clip_embed_dim(clip["model"])
            decode_head = ConfigDict({"embed_dim": width, **decode_head})
        if neck is not None:
            neck = _with_clip(neck, clip)
            if split is not None:
                neck, decode_head = _with_split(neck, decode_head, ClassSplit.build(split))
            neck, decode_head = _with_levels(neck, decode_head, backbone)
        with shared_clip():
            super().__init__(
                backbone=backbone,
                decode_head=decode_head,
                neck=neck,
                data_preprocessor=_with_statistics(data_preprocessor, clip),
                **kwargs,
            )
        self.register_buffer("pixels", _statistics_in_use(self.data_preprocessor))

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any) -> None:
        # Version 0.1 did not write them.
        found = state_dict.setdefault(prefix + "pixels", self.pixels)
        own = self.pixels.cpu()
        if not isinstance(found, Tensor) or found.shape not in ((2, 3), (0,)):
            raise UserError(
                f"the checkpoint is damaged: {prefix}pixels is not a mean and a standard deviation"
            )
        if found.shape != own.shape or not torch.allclose(found.cpu(), own, atol=1e-3):
            raise UserError(
                "the checkpoint was trained with pixels normalized by (mean, std) "
                f"{_rounded(found)}, but the model's data preprocessor has {_rounded(own)}: set "
                "model.data_preprocessor.mean and .std to the checkpoint's"
            )
        super()._load_from_state_dict(state_dict, prefix, *args)

    def slide_inference(self, inputs: Tensor, batch_img_metas: list[dict]) -> Tensor:
        """What ``EncoderDecoder`` computes, with the windows in batches.

        Args:
            inputs: Images, shape (B, 3, h, w).
            batch_img_metas: Their meta information.

        Returns:
            What the head predicts, averaged over the windows, shape (B, K, h, w).
        """
        return slide_in_batches(self.encode_decode, inputs, batch_img_metas, self.test_cfg)

    def postprocess_result(
        self, seg_logits: Tensor, data_samples: OptSampleList = None
    ) -> SampleList:
        """Resize the class maps to the original image sizes and take the best class.

        Args:
            seg_logits: What the head predicts, shape (B, K, h, w); the largest value wins.
            data_samples: Samples to put the results into, with their sizes; None makes new ones.

        Returns:
            Samples with ``pred_sem_seg`` (1, H, W) and ``seg_logits`` (K, H, W).
        """
        if seg_logits.shape[1] > 1:
            return super().postprocess_result(seg_logits, data_samples)
        samples = super().postprocess_result(
            torch.cat([seg_logits, seg_logits - 1], dim=1), data_samples
        )
        for sample in samples:
            sample.seg_logits = PixelData(data=sample.seg_logits.data[:1])
        return samples


def _takes(part: Mapping[str, Any], name: str) -> bool:
    """Whether a part has an argument, be it through the ``**kwargs`` for a base class."""
    kind = MODELS.get(part["type"]) if isinstance(part["type"], str) else part["type"]
    for cls in getattr(kind, "__mro__", ()):
        parameters = inspect.signature(cls.__init__).parameters
        if name in parameters:
            return True
        if all(p.kind is not p.VAR_KEYWORD for p in parameters.values()):
            return False
    return False


def _with_clip(part: Mapping[str, Any], clip: Mapping[str, Any]) -> ConfigDict:
    """The config of a part, with ``clip`` if the part takes one and knows it from nothing else."""
    if _takes(part, "clip") and part.get("clip") is None and part.get("embed_dim") is None:
        return ConfigDict({**part, "clip": clip})
    return ConfigDict(part)


def _with_split(
    neck: ConfigDict, head: ConfigDict, split: ClassSplit
) -> tuple[ConfigDict, ConfigDict]:
    """The configs of neck and head with the split, and its number of classes, if they take it."""
    if _takes(neck, "split"):
        neck.split = ClassSplit.agreed({"model.split": split, "its neck": neck.get("split")})
    if _takes(head, "num_classes") and head.setdefault("num_classes", split.num_classes) != (
        split.num_classes
    ):
        raise UserError(
            f"{head.type} has num_classes={head.num_classes}, but model.split has "
            f"{split.num_classes} classes: leave num_classes out"
        )
    return neck, head


def _with_levels(
    neck: ConfigDict, head: ConfigDict, backbone: ConfigDict
) -> tuple[ConfigDict, ConfigDict]:
    """The configs of neck and head for as many levels as the backbone returns, if they take it."""
    if not _takes(backbone, "project") or not _takes(backbone, "out_indices"):
        return neck, head
    levels = len(backbone.get("out_indices", (-1,)))
    adapters = 0 if backbone.get("project", True) else levels
    for part, name, number in ((neck, "adapters", adapters), (head, "num_levels", levels)):
        if _takes(part, name) and part.setdefault(name, number) != number:
            raise UserError(
                f"{part.type} has {name}={part[name]}, but the backbone (out_indices, project) "
                f"asks for {number}: leave {name} out"
            )
    return neck, head


def _with_statistics(part: Any, clip: Mapping[str, Any]) -> Any:
    """The data preprocessor's config, with CLIP's mean and standard deviation if it has none."""
    keys = ("mean", "std")
    asked = [key for key in keys if clip.get(key) is not None]
    own = [key for key in keys if isinstance(part, Mapping) and part.get(key) is not None]
    if not isinstance(part, Mapping) or (own and asked):
        if asked:
            raise UserError(
                f"`clip` sets {' and '.join(asked)}, but the data preprocessor has its own: set "
                "data_preprocessor=dict(mean=None, std=None) to use those of `clip`"
            )
        return part
    if len(own) == 1:
        raise UserError(
            f"the data preprocessor has only {own[0]}: give it both mean and std, or neither to "
            "use those of `clip`"
        )
    values, who = {key: list(part.get(key) or ()) for key in keys}, "the data preprocessor"
    if not own:
        source = resolve_clip(**clip)
        values, who = {"mean": list(source.mean), "std": list(source.std)}, source.stated_by["mean"]
    print_log(f"Pixels are normalized with {values} ({who})", logger="current", level=logging.INFO)
    return ConfigDict({**part, **values})


def _statistics_in_use(preprocessor: Any) -> Tensor:
    """Mean and standard deviation of the pixels, shape (2, 3); (0,) where they stay as they are."""
    if not hasattr(preprocessor, "mean"):
        return torch.empty(0)
    return torch.stack([preprocessor.mean.flatten().float(), preprocessor.std.flatten().float()])


def _rounded(pixels: Tensor) -> list[Any]:
    return [[round(part, 3) for part in row] for row in pixels.tolist()] if len(pixels) else []
