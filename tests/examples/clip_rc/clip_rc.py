"""The idea of CLIP-RC as a method outside the package: region tokens and a recovery loss.

Each region of the image has a token in CLIP's image tower, which attends to the patches of its
region; text queries gather what the region tokens hold. In training, a small decoder recovers the
features of the untouched CLIP, so that what the visual prompts learn does not replace what CLIP
knows.

Source:
    Zhang et al., "Exploring Regional Clues in CLIP for Zero-Shot Semantic Segmentation" (CVPR
    2024).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from mmseg.registry import MODELS
from torch import Tensor, nn

from mmseg_otseg.models import CLIPBackbone, DLFANeck, ZegCLIPHead
from mmseg_otseg.structures import AlignedFeatures, CLIPFeatures


@dataclass(frozen=True)
class RegionFeatures(CLIPFeatures):
    """Features with those of the untouched CLIP, which only training needs."""

    plain: CLIPFeatures | None = None


@MODELS.register_module()
class RegionBackbone(CLIPBackbone):
    """CLIP's tower with a token for each of ``regions`` x ``regions`` parts of the image."""

    def __init__(self, regions: int = 2, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.regions = regions
        self.region_tokens = nn.Parameter(0.02 * torch.randn(regions**2, self.tower.width))

    def extra_tokens(self, tokens: Tensor, grid: tuple[int, int]) -> tuple[Tensor, Tensor]:
        """Region tokens (B, E, C), and a mask (L, L) that hides other regions from them."""
        number, patches = self.regions**2, grid[0] * grid[1]
        rows, columns = (
            torch.arange(side, device=tokens.device) * self.regions // side for side in grid
        )
        region = (rows[:, None] * self.regions + columns).flatten()  # (M,)
        outside = torch.arange(number, device=tokens.device)[:, None] != region  # (E, M)
        first = tokens.shape[1] - patches + self.num_prompts
        end = first + patches
        mask = tokens.new_zeros(end + number, end + number)
        mask[end:, first:end].masked_fill_(outside, -torch.inf)
        mask[:end, end:] = -torch.inf  # no other token sees the region tokens
        return tokens[:, :1] + self.region_tokens, mask

    def forward(self, images: Tensor) -> RegionFeatures:
        features = super().forward(images)
        plain = self.plain_features(images) if self.training else None
        return RegionFeatures(features.local, features.global_token, features.extra, plain)


@MODELS.register_module()
class RegionNeck(DLFANeck):
    """Adds to each query what the region tokens that are like its text hold."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.gather = nn.Linear(self.text.embed_dim, self.text.embed_dim)

    def make_queries(self, text: Tensor, features: CLIPFeatures) -> Tensor:
        assert features.extra is not None
        regions = F.normalize(features.extra, dim=-1)  # (B, E, D)
        weights = torch.einsum("knd,bed->bkne", text, regions).softmax(-1)
        gathered = torch.einsum("bkne,bed->bknd", weights, regions)
        return super().make_queries(text, features) + self.gather(gathered)


@MODELS.register_module()
class RegionHead(ZegCLIPHead):
    """ZegCLIP's head, with a loss for recovering the untouched CLIP's patches."""

    training_only = ("recovery",)

    def __init__(self, num_classes: int, embed_dim: int, **kwargs: Any) -> None:
        super().__init__(num_classes, embed_dim, **kwargs)
        self.recovery = nn.Sequential(
            nn.Linear(embed_dim, embed_dim), nn.ReLU(), nn.Linear(embed_dim, embed_dim)
        )

    def maps_and_losses(
        self, inputs: AlignedFeatures
    ) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        maps, losses = super().maps_and_losses(inputs)
        features = inputs.features
        assert isinstance(features, RegionFeatures) and features.plain is not None
        recovered = self.recovery(features.local[-1].movedim(1, -1))
        target = features.plain.local[-1].movedim(1, -1)
        similarity = F.cosine_similarity(recovered, target, dim=-1)
        return maps, {**losses, "recovery.loss": 1 - similarity.mean()}
