"""The head of training-free segmentation: cosine similarities, and a softmax over all names."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from mmseg.registry import MODELS
from mmseg.utils import SampleList
from torch import Tensor

from mmseg_otseg.errors import UserError
from mmseg_otseg.ops import pixel_prompt_similarity
from mmseg_otseg.structures.features import AlignedFeatures

from .zero_shot_head import ZeroShotHead


@MODELS.register_module()
class SimilarityHead(ZeroShotHead):
    """CLIP's own maps: the mean cosine of each patch with the prompts of each name.

    Cosines of windows are averaged, and refined, before :meth:`merge_names` makes probabilities of
    them, which is what :class:`~mmseg_otseg.models.CLIPEncoderDecoder` does.

    Args:
        num_classes, embed_dim: See :class:`ZeroShotHead`.
        scale: Factor of the cosines in the softmax.
        seen_bias: Subtracted from the seen classes' probabilities.
        kwargs: See :class:`ZeroShotHead`.

    Source:
        NACLIP (arXiv 2404.08181); SCLIP (arXiv 2312.01597).
    """

    predict_from = "similarity"
    normalizes = True

    def __init__(
        self,
        num_classes: int,
        embed_dim: int,
        scale: float = 40.0,
        seen_bias: float = 0.0,
        **kwargs: Any,
    ) -> None:
        super().__init__(num_classes, embed_dim, seen_bias=seen_bias, **kwargs)
        self.scale = scale

    def class_maps(self, queries: Tensor, levels: list[Tensor]) -> dict[str, Tensor]:
        """``similarity``, the mean cosine with the prompts of each name, shape (B, Q, M).

        See :meth:`ZeroShotHead.class_maps`; the queries too have unit length here.
        """
        return {"similarity": pixel_prompt_similarity(levels[-1], queries).mean(2)}

    def activate(self, maps: Tensor, seen: Tensor) -> Tensor:
        """Cosines stay what they are until :meth:`merge_names`."""
        return maps

    def merge_names(self, maps: Tensor, names_per_class: Sequence[int], seen: Tensor) -> Tensor:
        """Probabilities (B, K, h, w) of cosines (B, Q, h, w), less the seen-class bias.

        A softmax over all names, and then the largest over the names of each class. See
        :meth:`ZeroShotHead.merge_names`. The cosines are overwritten, to save memory.
        """
        maps = super().merge_names(maps.mul_(self.scale).softmax(1), names_per_class, seen)
        return maps.sub_(self.seen_bias * seen[:, None, None].to(maps)) if self.seen_bias else maps

    def loss(
        self, inputs: AlignedFeatures, batch_data_samples: SampleList, train_cfg: Any = None
    ) -> dict[str, Tensor]:
        """Refused: nothing here is trained."""
        raise UserError("a SimilarityHead is not trained: use it for testing and inference alone")
