"""Test-time augmentation."""

from __future__ import annotations

from typing import Any

from mmengine.model import BaseTTAModel
from mmengine.structures import PixelData
from mmseg.registry import MODELS
from mmseg.utils import SampleList
from torch import Size, Tensor

from .sliding import ImageMaps, place_labels


@MODELS.register_module()
class ZeroShotTTAModel(BaseTTAModel):
    """Predicts the mean, over several views of an image, of what the head predicts.

    These are probabilities minus the seen-class bias, so no class depends on the others, and
    ``test_cfg.none_below`` means what it means without views. mmseg's ``SegTTAModel`` averages a
    softmax of them instead. The maps of all views of one size are added
    up as they come, and are resized when the labels are placed.

    Args:
        module: The segmentor or its config.
        data_preprocessor: As in ``BaseTTAModel``.
    """

    def test_step(self, data: dict[str, Any]) -> SampleList:
        """Predict a batch.

        Args:
            data: For each view ``inputs`` and ``data_samples`` of all images.

        Returns:
            The samples of the first view, with ``pred_sem_seg``, class indices (1, H, W), int64, at
            the size of the original image.

        Raises:
            UserError: If a value is not finite.
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
        for sample, total in zip(samples, sums):
            size = sample.metainfo["ori_shape"]
            options = (self.module.align_corners, none_below, self.module.background_label)
            labels, _ = place_labels([*total.values()], size, *options)
            sample.pred_sem_seg = PixelData(data=labels[None])
        return samples

    def merge_preds(self, data_samples_list: Any) -> SampleList:
        """Not used: the views are merged as they are predicted."""
        raise NotImplementedError
