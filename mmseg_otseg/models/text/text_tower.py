"""CLIP's text tower on its own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import open_clip
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmseg_otseg.models.clip import check_text_tower, clip_config

BATCH = 256


class TextTower(nn.Module):
    """The text tower of an open_clip model: encodes tokens, given as indices or as embeddings.

    Attention is causal, so what follows the end token cannot reach it: sequences are cut there.

    Args:
        clip: The open_clip model whose text tower is taken (the image tower can then be freed).
        tokenizer: Maps a list of strings to token indices (n, context length).

    Raises:
        ValueError: If the text tower is not CLIP's own causal transformer.
    """

    token_embedding: nn.Embedding
    positional_embedding: nn.Parameter
    transformer: nn.Module
    ln_final: nn.LayerNorm
    text_projection: nn.Parameter | nn.Linear
    attn_mask: Tensor

    def __init__(self, clip: nn.Module, tokenizer: Any) -> None:
        super().__init__()
        source: Any = getattr(clip, "text", clip)
        parts = (
            "token_embedding",
            "positional_embedding",
            "transformer",
            "ln_final",
            "text_projection",
        )
        if not all(hasattr(source, part) for part in parts) or source.attn_mask is None:
            raise ValueError(
                f"this CLIP's text tower ({type(source).__name__}) is not CLIP's causal "
                "transformer; encode the prompts elsewhere and use PrecomputedPrompts"
            )
        self.token_embedding = source.token_embedding
        self.positional_embedding = source.positional_embedding
        self.transformer = source.transformer
        self.ln_final = source.ln_final
        self.text_projection = source.text_projection
        self.register_buffer("attn_mask", source.attn_mask.clone(), persistent=False)
        self.tokenizer = tokenizer

    def tokenize(self, texts: Sequence[str]) -> Tensor:
        """Token indices (n, L) of texts, cut after the longest text's end token.

        Raises:
            ValueError: If a text is longer than the tower takes.
        """
        limit = len(self.positional_embedding)
        # With room for one token more, so that the tokenizer cuts nothing that would fit.
        tokens = self.tokenizer(list(texts), context_length=limit + 1)
        ends = tokens.argmax(dim=-1)
        if int(ends.max()) >= limit:
            raise ValueError(
                f"the text {texts[int(ends.argmax())]!r} is longer than the {limit} tokens (with "
                "start and end) that CLIP's text tower takes: use a shorter class name"
            )
        return tokens[:, : int(ends.max()) + 1]

    def forward(self, tokens: Tensor) -> Tensor:
        """Token indices (n, L) to text embeddings (n, D), unit length."""
        return self.encode_embeddings(self.token_embedding(tokens), tokens.argmax(dim=-1))

    def encode_embeddings(self, embeddings: Tensor, ends: Tensor) -> Tensor:
        """Text embeddings of sequences given as token embeddings.

        Args:
            embeddings: Token embeddings without position, shape (n, L, C).
            ends: Position of each sequence's end token, shape (n,), int64.

        Returns:
            Text embeddings, shape (n, D), unit length.
        """
        length = embeddings.shape[1]
        x = embeddings + self.positional_embedding[:length]
        x = self.transformer(x, attn_mask=self.attn_mask[:length, :length])
        x = self.ln_final(x[torch.arange(len(x), device=x.device), ends])
        projection = self.text_projection
        x = projection(x) if isinstance(projection, nn.Linear) else x @ projection
        return F.normalize(x, dim=-1)


def build_text_tower(clip: nn.Module, model: str | Mapping[str, Any]) -> TextTower:
    """The text tower of a loaded CLIP with the tokenizer that belongs to ``model``."""
    check_text_tower(model)
    if isinstance(model, str):
        tokenizer = open_clip.get_tokenizer(model.replace("/", "-"))
    else:
        context = clip_config(model)["text_cfg"].get("context_length", 77)
        tokenizer = open_clip.SimpleTokenizer(context_length=context)
    return TextTower(clip, tokenizer)


@torch.no_grad()
def encode_texts(tower: TextTower, texts: Sequence[str]) -> Tensor:
    """Texts to embeddings (n, D), unit length, float32, without a graph."""
    chunks = [texts[start : start + BATCH] for start in range(0, len(texts), BATCH)]
    return torch.cat([tower(tower.tokenize(chunk)) for chunk in chunks]).float()
