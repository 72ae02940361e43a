"""The mask loss of ZegCLIP and OTSeg."""

from __future__ import annotations

import torch
from mmengine.dist import all_reduce
from mmseg.registry import MODELS
from torch import Tensor, nn

from mmseg_otseg.errors import check_option
from mmseg_otseg.ops import focal_dice_sums
from mmseg_otseg.ops.mask_loss import IGNORED_PIXELS


@MODELS.register_module()
class FocalDiceLoss(nn.Module):
    """Weighted focal and dice loss, divided by the number of (image, class) pairs that occur.

    The number is averaged over the processes and is at least 1. If no process has a labeled pixel,
    there is nothing to learn: both losses are zero, with zero gradient.

    Args:
        mask_weight: Weight of the focal loss.
        dice_weight: Weight of the dice loss.
        alpha: Weight of positive pixels in the focal loss.
        gamma: Exponent of the focal loss.
        ignored: ``"negative"`` (as the authors train) or ``"masked"``: what pixels of no class are,
            see :func:`~mmseg_otseg.ops.focal_dice_sums`.

    Raises:
        UserError: If ``ignored`` is unknown.

    Source:
        ZegCLIP (arXiv 2212.03588), section 3.3.
    """

    def __init__(
        self,
        mask_weight: float = 100.0,
        dice_weight: float = 1.0,
        alpha: float = 0.25,
        gamma: float = 2.0,
        ignored: str = "negative",
    ) -> None:
        super().__init__()
        check_option("ignored", ignored, IGNORED_PIXELS)
        self.mask_weight, self.dice_weight = mask_weight, dice_weight
        self.alpha, self.gamma, self.ignored = alpha, gamma, ignored

    def forward(self, logits: Tensor, target: Tensor) -> dict[str, Tensor]:
        """Compare class maps with labels.

        Args:
            logits: Class maps, shape (B, K, H, W), logits, of any resolution.
            target: Class indices 0..K-1, shape (B, h, w), int64; anything else is not a class.

        Returns:
            ``loss_mask`` (focal) and ``loss_dice``, scalars.
        """
        sums = focal_dice_sums(logits, target, self.alpha, self.gamma, self.ignored)
        pairs = sums.pairs.clone()
        all_reduce(pairs, op="mean")
        share = torch.where(pairs > 0, 1 / pairs.clamp_min(1), 0.0)
        return {
            "loss_mask": self.mask_weight * share * sums.focal,
            "loss_dice": self.dice_weight * share * sums.dice,
        }
