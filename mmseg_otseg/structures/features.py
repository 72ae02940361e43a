"""The features that the backbone passes to the neck and the neck to the head."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class CLIPFeatures:
    """Output of :class:`~mmseg_otseg.models.CLIPBackbone` for B images.

    Attributes:
        local: Patch tokens of each chosen layer, shape (B, C, H, W) each. C is the width D of
            CLIP's joint space if the backbone projects the tokens, otherwise the tower's width.
        global_token: CLIP's image embedding, shape (B, D), unit length: its class token in the
            joint space or, for a CLIP without a class token, the result of pooling its patches.
        extra: Tokens that a method of the user's own added to the tower, shape (B, E, C), C as
            above; None without any.
    """

    local: tuple[Tensor, ...]
    global_token: Tensor
    extra: Tensor | None = None


@dataclass(frozen=True)
class AlignedFeatures:
    """Output of :class:`~mmseg_otseg.models.DLFANeck`: text and local features in one space.

    Attributes:
        pixels: Local features of each level, one for each patch, shape (B, D, H, W) each, unit
            length. The papers call them pixels.
        queries: Text queries, shape (B, K, N, D): N prompts of each of K classes, or of each of
            their names where testing a class has several.
        classes: Full class index of each of the K query classes, shape (K,), int64, in order.
        seen: Whether each query class is a seen class, shape (K,), bool.
        unseen: The query classes that self-training uses as pseudo labels, as indices into the
            queries, shape (U,), int64; None without self-training.
        features: What the backbone returned, for heads that need more than patches and queries.
    """

    pixels: tuple[Tensor, ...]
    queries: Tensor
    classes: Tensor
    seen: Tensor
    unseen: Tensor | None = None
    features: CLIPFeatures | None = None
