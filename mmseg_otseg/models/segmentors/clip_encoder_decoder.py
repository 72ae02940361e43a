"""A segmentor whose parts share one CLIP and one class split, and its test-time augmentation."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from mmengine.model import BaseTTAModel
from mmengine.structures import PixelData
from mmseg.models.segmentors import EncoderDecoder
from mmseg.registry import MODELS
from mmseg.structures import SegDataSample
from mmseg.utils import OptSampleList, SampleList
from torch import Size, Tensor, nn

from mmseg_otseg.errors import UserError
from mmseg_otseg.imaging import palette_for
from mmseg_otseg.models.clip import shared_clip
from mmseg_otseg.ops import refine as refined
from mmseg_otseg.structures.class_split import SplitLike

from .model_config import resolve_model
from .sliding import ImageMaps, argmax_at_size, predict_windows


@MODELS.register_module()
class CLIPEncoderDecoder(EncoderDecoder):
    """mmseg's ``EncoderDecoder``, whose config names CLIP and the class split in one place each.

    :func:`resolve_model` says which arguments of the parts follow from them. An ``EncoderDecoder``
    whose parts are given all of their arguments is the same model with the same state dict, with
    these differences. mmseg takes a single class for foreground against background, while here it
    is a vocabulary of one class, and a class may have several names. In the ``slide`` mode of
    ``test_cfg``, ``window_batch`` (4) windows run at a time. ``refine=True`` refines the class
    maps; pixels whose best value is below ``none_below`` get the :attr:`background_label`.
    ``seg_logits`` of samples have the size that the test pipeline gave the image, or are left out,
    see :meth:`predict`. Checkpoints hold the mean and the standard deviation of the pixels.

    Args:
        clip: ``dict(model=..., pretrained=...)``, see :func:`~mmseg_otseg.models.clip.load_clip`.
        backbone: Config of the backbone.
        decode_head: Config of the head, a :class:`~mmseg_otseg.models.ZeroShotHead`.
        neck: Config of the neck, a :class:`~mmseg_otseg.models.DLFANeck`.
        split: The class split, see :class:`~mmseg_otseg.structures.ClassSplit`.
        data_preprocessor: Config of the data preprocessor. If its ``mean`` and ``std`` are None,
            they are those that the CLIP was trained with.
        compile_losses: Compile the losses of a training step into one graph: True, or options of
            ``torch.compile``. A config sets it with ``compile``.
        kwargs: As in ``EncoderDecoder``.

    Raises:
        UserError: As in :func:`resolve_model`; on loading a checkpoint that was trained with other
            values of mean and standard deviation.
    """

    pixels: Tensor

    def __init__(
        self,
        clip: Mapping[str, Any],
        backbone: Mapping[str, Any],
        decode_head: Mapping[str, Any],
        neck: Mapping[str, Any],
        split: SplitLike | None = None,
        data_preprocessor: Mapping[str, Any] | nn.Module | None = None,
        compile_losses: bool | Mapping[str, Any] = False,
        **kwargs: Any,
    ) -> None:
        parts = resolve_model(
            dict(
                clip=clip,
                split=split,
                backbone=backbone,
                neck=neck,
                decode_head=decode_head,
                data_preprocessor=data_preprocessor,
            )
        )
        with shared_clip():
            super().__init__(
                backbone=parts.backbone,
                decode_head=parts.decode_head,
                neck=parts.neck,
                data_preprocessor=parts.data_preprocessor,
                **kwargs,
            )
        self.register_buffer("pixels", _statistics_in_use(self.data_preprocessor))
        self._data_meta: Mapping[str, Any] = {}
        self._compile_options = {} if compile_losses is True else compile_losses
        self._compiled_loss: Any = None

    @property
    def dataset_meta(self) -> dict[str, Any]:
        """``classes`` of the model's text, and a ``palette`` in which known names keep colors."""
        classes = self.neck.text.split.classes
        return {"classes": classes, "palette": palette_for(classes, self._data_meta)}

    @dataset_meta.setter
    def dataset_meta(self, meta: Mapping[str, Any] | None) -> None:
        """Take colors from the data that a checkpoint was trained on; its classes stay behind."""
        self._data_meta = meta or {}

    @property
    def background_label(self) -> int:
        """K; with a split whose last class is the background, the label of that one."""
        return len(self.neck.text.split.foreground)

    def loss(self, inputs: Tensor, data_samples: SampleList) -> dict[str, Tensor]:
        """Losses of normalized images (B, 3, h, w) and samples with ``gt_sem_seg``."""
        if self._compile_options is False:
            return super().loss(inputs, data_samples)
        if self._compiled_loss is None:
            self._compiled_loss = torch.compile(super().loss, **self._compile_options)
        # Paths and sizes of the images differ in each step, which would compile each step anew.
        return self._compiled_loss(inputs, [_labels_alone(sample) for sample in data_samples])

    def inference(
        self, inputs: Tensor, batch_img_metas: list[dict], refine: bool | None = None
    ) -> Tensor:
        """What the head makes of whole images or of their windows.

        Args:
            inputs: Images, shape (B, 3, h, w).
            batch_img_metas: Their meta information.
            refine: Whether edges in the maps move to edges in the images, see
                :func:`~mmseg_otseg.ops.refine`; None means ``test_cfg.refine``, or else no.

        Returns:
            Class maps, shape (B, K, h, w), in which the largest value wins.
        """
        maps = torch.stack([each.whole() for each in self._image_maps(inputs, batch_img_metas)])
        if self.test_cfg.get("refine", False) if refine is None else refine:
            maps = refined(maps, inputs)
        names_per_class, seen = self._vocabulary()
        return self.decode_head.merge_names(maps, names_per_class.tolist(), seen.to(maps.device))

    def predict(self, inputs: Tensor, data_samples: OptSampleList = None) -> SampleList:
        """Take the best class of each pixel of the original images.

        Class maps never have the size of the original images, which can be large. With
        ``test_cfg.keep_maps=False`` they do not even have the size that the test pipeline gave the
        images, unless a softmax or refinement takes all of them at once. A run sets it if no metric
        reads them.

        Args:
            inputs: Normalized images, shape (B, 3, h, w).
            data_samples: Samples with the images' meta information; None stands for images that
                are not resized.

        Returns:
            Samples with ``pred_sem_seg``, class indices (1, H, W), int64, at the size of the
            original image; and, unless ``keep_maps=False``, ``seg_logits`` (K, h', w'), at the size
            that the test pipeline gave the image, without padding and flip. With ``EncoderDecoder``
            the latter have the original size.

        Raises:
            UserError: If a value is not finite.
        """
        samples = data_samples or [
            SegDataSample(metainfo=dict(ori_shape=inputs.shape[2:])) for _ in inputs
        ]
        metas, keeps = [each.metainfo for each in samples], self.test_cfg.get("keep_maps", True)
        if keeps or self._needs_all_maps(samples):
            maps = [ImageMaps.of(values) for values in self.inference(inputs, metas)]
        else:
            maps = self._image_maps(inputs, metas)
        none_below = self.test_cfg.get("none_below")
        for sample, each in zip(samples, maps):
            upright, size = each.upright(sample.metainfo), sample.ori_shape
            labels, _ = argmax_at_size([upright], size, none_below, self.background_label)
            sample.pred_sem_seg = PixelData(data=labels[None])
            if keeps:
                sample.seg_logits = PixelData(data=upright.whole())
        return samples

    def _needs_all_maps(self, samples: SampleList) -> bool:
        """Whether labels take all maps at once: for refinement, or the values of a softmax."""
        head, config = self.decode_head, self.test_cfg
        resized = any(tuple(s.ori_shape) != tuple(s.get("img_shape", s.ori_shape)) for s in samples)
        softmax = resized or head.seen_bias or config.get("none_below") is not None
        return bool(config.get("refine", False) or (head.normalizes and softmax))

    def _image_maps(self, inputs: Tensor, metas: list[dict]) -> list[ImageMaps]:
        """What the head makes of each image: maps of all names, at the resolution of patches."""
        head = self.decode_head
        names_per_class, seen = (each.to(inputs.device) for each in self._vocabulary())
        of_names = seen.repeat_interleave(names_per_class)
        classes = torch.arange(len(seen), device=seen.device).repeat_interleave(names_per_class)

        def predict(crops: Tensor, metas: list[dict]) -> Tensor:
            return head.name_maps(self.extract_feat(crops))

        def activate(maps: Tensor, names: Any) -> Tensor:
            return head.activate(maps, of_names[names])

        found = predict_windows(predict, inputs, metas, self.test_cfg, self.out_channels)
        size = (inputs.shape[2], inputs.shape[3])
        return [
            ImageMaps(size, [(r, c, maps[index]) for r, c, maps in found], activate, classes)
            for index in range(len(inputs))
        ]

    def _vocabulary(self) -> tuple[Tensor, Tensor]:
        """How many names each class has, and whether it is seen, shape (K,) each."""
        split, known = self.neck.text.split, self.neck.seen_names
        names_per_class = torch.tensor(split.names_per_class)
        return names_per_class, torch.tensor([name in known for name in split.classes])

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any) -> None:
        # Version 0.1 did not write them.
        found = state_dict.setdefault(prefix + "pixels", self.pixels)
        own = self.pixels.cpu()
        if found.shape != own.shape or not torch.allclose(found.cpu(), own, atol=1e-3):
            raise UserError(
                "the checkpoint was trained with pixels normalized by (mean, std) "
                f"{_rounded(found)}, but the model's data preprocessor has {_rounded(own)}: set "
                "model.data_preprocessor.mean and .std to the checkpoint's"
            )
        super()._load_from_state_dict(state_dict, prefix, *args)


def _statistics_in_use(preprocessor: Any) -> Tensor:
    """Mean and standard deviation of the pixels, shape (2, 3); (0,) where they stay as they are."""
    if not hasattr(preprocessor, "mean"):
        return torch.empty(0)
    return torch.stack([preprocessor.mean.flatten().float(), preprocessor.std.flatten().float()])


def _rounded(pixels: Tensor) -> list[Any]:
    return [[round(part, 3) for part in row] for row in pixels.tolist()] if len(pixels) else []


def _labels_alone(sample: SegDataSample) -> SegDataSample:
    """A sample with its labels alone, so that nothing but values changes between steps."""
    labels = sample.gt_sem_seg.data
    # The stride of the first axis, of length 1, must not depend on whether the label was padded.
    return SegDataSample(gt_sem_seg=PixelData(data=labels.squeeze(0).contiguous().unsqueeze(0)))


@MODELS.register_module()
class ZeroShotTTAModel(BaseTTAModel):
    """Predicts the mean, over several views of an image, of what the head predicts.

    These are probabilities minus the seen-class bias, so no class depends on the others, and
    ``test_cfg.none_below`` is compared with their mean. mmseg's ``SegTTAModel`` averages a softmax
    of them instead. The maps of all views of one size are added up as they come, and are resized
    when the labels are placed.

    Args:
        module: The segmentor or its config.
        data_preprocessor: As in ``BaseTTAModel``.
    """

    def test_step(self, data: dict[str, Any]) -> SampleList:
        """Predict a batch, for each of whose views ``data`` has ``inputs`` and ``data_samples``.

        Returns:
            The samples of the first view, with ``pred_sem_seg``, class indices (1, H, W), int64, at
            the size of the original image.
        """
        count = len(data["inputs"])
        sums: list[dict[Size, Tensor]] = [{} for _ in data["inputs"][0]]
        samples: SampleList = []
        for view in range(count):
            batch = {key: values[view] for key, values in data.items()}
            batch = self.module.data_preprocessor(batch, False)
            samples = samples or batch["data_samples"]
            metas = [sample.metainfo for sample in batch["data_samples"]]
            for total, values, meta in zip(
                sums, self.module.inference(batch["inputs"], metas), metas
            ):
                values = ImageMaps.of(values).upright(meta).whole().float() / count
                total[values.shape] = total.get(values.shape, 0) + values
        none_below = self.module.test_cfg.get("none_below")
        none_label = getattr(self.module, "background_label", -1)  # mmseg's own has none
        for sample, total in zip(samples, sums):
            size = sample.metainfo["ori_shape"]
            labels, _ = argmax_at_size([*total.values()], size, none_below, none_label)
            sample.pred_sem_seg = PixelData(data=labels[None])
        return samples

    def merge_preds(self, data_samples_list: Any) -> SampleList:
        """Not used: the views are merged as they are predicted."""
        raise NotImplementedError
