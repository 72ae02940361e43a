"""Deep Local Feature Alignment: text prompts meet the local features of chosen layers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import lru_cache
from typing import Any

import torch
import torch.nn.functional as F
from mmseg.registry import MODELS
from torch import Tensor, nn

from mmseg_otseg.errors import UserError, check_option
from mmseg_otseg.models.clip import clip_embed_dim, load_clip
from mmseg_otseg.models.clip.timm_towers import image_tower
from mmseg_otseg.models.text import TextPrompts
from mmseg_otseg.models.trained import TrainedModule
from mmseg_otseg.structures.class_split import SplitLike
from mmseg_otseg.structures.features import AlignedFeatures, CLIPFeatures

TRAIN_CLASSES = ("seen", "all", "pseudo")


class RelationshipDescriptor(nn.Module):
    """``Q = Linear([T * g ; T])``: text embeddings T and their product with the global token g.

    Args:
        embed_dim: Width D.
        identity_init: Whether to initialize with the identity on the T half (``Q = T``), which
            helps short schedules, instead of a truncated normal.

    Source:
        ZegCLIP (arXiv 2212.03588), section 3.4.
    """

    def __init__(self, embed_dim: int, identity_init: bool = False) -> None:
        super().__init__()
        self.linear = nn.Linear(2 * embed_dim, embed_dim)
        nn.init.zeros_(self.linear.bias)
        if identity_init:
            with torch.no_grad():
                self.linear.weight.zero_()
                self.linear.weight[:, embed_dim:] = torch.eye(embed_dim)
        else:
            nn.init.trunc_normal_(self.linear.weight, std=0.02)

    def forward(self, text: Tensor, global_token: Tensor) -> Tensor:
        """Queries (B, K, N, D) of text (K, N, D) and global tokens (B, D), both unit length."""
        # The two halves of the product apart: the text half is the same for every image.
        on_product, on_text = self.linear.weight.chunk(2, dim=1)
        product = text * global_token[:, None, None, :]
        return product @ on_product.T + (text @ on_text.T + self.linear.bias)


@MODELS.register_module()
class DLFANeck(TrainedModule):
    """Puts text prompts and local features of each level into CLIP's joint space.

    With one level that the backbone projected, this is OTSeg's relationship descriptor. With
    several levels of raw tokens and ``adapters``, it is ZegOT's Deep Local Feature Alignment: each
    level has an adapter of its own (LayerNorm, Linear), initialized with CLIP's ``ln_post`` and
    projection.

    Args:
        clip: ``dict(model=..., pretrained=...)``: the CLIP of the text prompts, and the one whose
            weights initialize the adapters.
        text: Config of the text prompts, a :class:`~mmseg_otseg.models.text.TextPrompts`.
        split: The class split; None if the config of the text prompts has it.
        adapters: Number of levels that get an adapter: 0, or as many as the backbone returns.
        relationship_descriptor: Whether the image's global token goes into the queries; without
            it they are the text embeddings.
        identity_init: See :class:`RelationshipDescriptor`.
        train_classes: Which classes have queries in training: ``"seen"``; ``"all"``, on fully
            labeled data; or ``"pseudo"``, all of them, where the head gives unlabeled pixels pseudo
            labels of the unseen ones, as :class:`~mmseg_otseg.engine.hooks.SelfTrainingHook` wants.

    Raises:
        UserError: If ``train_classes`` is unknown, there is no split or two different ones, the
            text is of another width than CLIP's joint space, or the backbone's levels do not fit
            the adapters.

    Source:
        ZegOT (arXiv 2301.12171), Deep Local Feature Alignment; OTSeg (arXiv 2403.14183), section
        3.1.
    """

    def __init__(
        self,
        clip: Mapping[str, Any],
        text: Mapping[str, Any],
        adapters: int = 0,
        relationship_descriptor: bool = True,
        identity_init: bool = False,
        train_classes: str = "seen",
        split: SplitLike | None = None,
        init_cfg: dict[str, Any] | None = None,
    ) -> None:
        super().__init__(init_cfg)
        check_option("train_classes", train_classes, TRAIN_CLASSES)
        self.train_classes = train_classes
        self.text: TextPrompts = MODELS.build({"clip": clip, "split": split, **text})
        width = clip_embed_dim(clip["model"])
        if self.text.embed_dim != width:
            raise UserError(
                f"the text embeddings have width {self.text.embed_dim}, but the CLIP model's joint "
                f"space has {width}: use embeddings of the CLIP that `clip` names"
            )
        self.descriptor = (
            RelationshipDescriptor(width, identity_init) if relationship_descriptor else None
        )
        self.adapters = _adapters_from_clip(clip, adapters)
        self.seen_names = frozenset(self.text.split.seen_names)

    def set_classes(self, classes: Sequence[str] | SplitLike) -> None:
        """Replace the vocabulary.

        Args:
            classes: Class names: a name that was a seen class stays one, all others are unseen.
                Or a split with seen classes of its own, see
                :class:`~mmseg_otseg.structures.ClassSplit`.

        Raises:
            UserError: If the split is not valid, or the text prompts refuse the names.
        """
        if isinstance(classes, Sequence) and not isinstance(classes, str):
            self.text.set_classes({"classes": classes})
        else:
            self.text.set_classes(classes)
            self.seen_names = frozenset(self.text.split.seen_names)

    def forward(self, features: CLIPFeatures) -> AlignedFeatures:
        """Align text and the local features that the backbone returned.

        Returns:
            Unit-length patches of every level, and queries: in training one for each class, with
            ``train_classes="seen"`` for the seen ones only; otherwise one for each name.
        """
        split, device = self.text.split, features.global_token.device
        only_seen = self.training and self.train_classes == "seen"
        names, classes, seen, unseen = _constant_tables(
            split.names, self.seen_names, self.training, only_seen, device
        )
        aligned = self.align(features, self.text(names), classes, seen)
        return replace(aligned, unseen=unseen) if self.train_classes == "pseudo" else aligned

    def align(
        self,
        features: CLIPFeatures,
        text: Tensor,
        classes: Tensor | None = None,
        seen: Tensor | None = None,
    ) -> AlignedFeatures:
        """Align text embeddings, given as such, and local features.

        Args:
            features: Output of the backbone.
            text: Text embeddings, shape (Q, N, D), unit length.
            classes: Full class index of each, shape (Q,), int64; None counts from 0.
            seen: Whether each is of a seen class, shape (Q,), bool; None is all.

        Returns:
            Unit-length patches of every level, and a query for each text embedding.
        """
        if classes is None:
            classes = torch.arange(text.shape[0], device=text.device)
        if seen is None:
            seen = torch.ones_like(classes, dtype=torch.bool)
        patches, queries = self._align_patches(features.local), self.make_queries(text, features)
        return AlignedFeatures(patches, queries, classes, seen, features=features)

    def make_queries(self, text: Tensor, features: CLIPFeatures) -> Tensor:
        """Queries (B, K, N, D), not normalized, of unit-length text embeddings (K, N, D).

        A method with other queries overrides this; ``features`` is the output of the backbone.
        """
        if self.descriptor is None:
            return text.expand(features.global_token.shape[0], -1, -1, -1)
        return self.descriptor(text, features.global_token)

    def _align_patches(self, local: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        """Local tokens (B, C, H, W) of each level to unit-length features (B, D, H, W)."""
        if len(self.adapters):
            if len(self.adapters) != len(local):
                raise UserError(
                    f"the neck has {len(self.adapters)} adapters but the backbone returns "
                    f"{len(local)} levels: set `adapters` of the neck to the number of "
                    "`out_indices` of the backbone"
                )
            local = tuple(
                adapter(level.movedim(1, -1)).movedim(-1, 1)
                for adapter, level in zip(self.adapters, local)
            )
        # In torch.jit.trace, sizes are tensors.
        wrong = {int(level.shape[1]) for level in local} - {int(self.text.embed_dim)}
        if wrong:
            raise UserError(
                f"local features have width {wrong.pop()}, the text has {self.text.embed_dim}: let "
                "the backbone project (`project=True`) or give the neck `adapters`, and use the "
                "same `clip` in both"
            )
        return tuple(F.normalize(level, dim=1) for level in local)


@lru_cache(maxsize=16)
def _class_tables(
    names: tuple[tuple[str, ...], ...],
    seen_names: frozenset[str],
    only_first: bool,
    only_seen: bool,
    device: torch.device,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Tables of the names that get queries, cached so that they are sent to a GPU only once.

    Returns:
        Their places among all names (Q,); their full class indices (Q,); whether each class is seen
        (Q,); which of the Q are not (U,).
    """
    owners = [(index, own[0], name) for index, own in enumerate(names) for name in own]
    chosen = [
        (place, index, first in seen_names)
        for place, (index, first, name) in enumerate(owners)
        if (not only_first or name == first) and (not only_seen or first in seen_names)
    ]
    unseen = [query for query, (_, _, known) in enumerate(chosen) if not known]
    with torch.inference_mode(False):  # or training could not use what a test has made
        return (
            torch.tensor([place for place, _, _ in chosen], dtype=torch.int64, device=device),
            torch.tensor([index for _, index, _ in chosen], dtype=torch.int64, device=device),
            torch.tensor([known for _, _, known in chosen], dtype=torch.bool, device=device),
            torch.tensor(unseen, dtype=torch.int64, device=device),
        )


@torch.compiler.assume_constant_result
def _constant_tables(*key: Any) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """:func:`_class_tables`, whose result a compiled step treats as a constant."""
    return _class_tables(*key)


def _adapters_from_clip(clip: Mapping[str, Any], count: int) -> nn.ModuleList:
    """``count`` adapters (LayerNorm, Linear), initialized with CLIP's ln_post and projection."""
    adapters = nn.ModuleList()
    if count:
        first, weight, bias = image_tower(load_clip(**clip).visual).linear_alignment()
        for _ in range(count):
            norm = nn.LayerNorm(list(first.normalized_shape), eps=first.eps)
            norm.load_state_dict(first.state_dict())
            linear = nn.Linear(weight.shape[1], weight.shape[0])
            with torch.no_grad():
                linear.weight.copy_(weight)
                linear.bias.copy_(torch.zeros(()) if bias is None else bias)
            adapters.append(nn.Sequential(norm, linear))
    return adapters
