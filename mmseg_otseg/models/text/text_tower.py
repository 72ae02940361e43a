"""CLIP's text tower on its own, and the positions of learned tokens in a text."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import open_clip
import torch
import torch.nn.functional as F
from mmengine.dist import is_main_process
from open_clip.tokenizer import HFTokenizer
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from tqdm import tqdm

from mmseg_otseg.errors import UserError
from mmseg_otseg.files import write_atomically
from mmseg_otseg.models.clip import check_text_tower, clip_config

from .prompts import digest_of

BATCH = 256
MANY = 2000  # texts that take some seconds
POSITIONS = ("end", "middle", "front")


class TextTower(nn.Module):
    """The text tower of an open_clip model: encodes tokens, given as indices or as embeddings.

    With causal attention, nothing after the end token affects it, so sequences are cut there. Other
    towers (SigLIP, MobileCLIP-S) attend to the padding too, so it stays.

    Args:
        clip: The open_clip model whose text tower is taken (the image tower can then be freed).
        tokenizer: Maps a list of strings to token indices (n, context length).
    """

    token_embedding: nn.Embedding
    positional_embedding: nn.Parameter
    transformer: nn.Module
    ln_final: nn.LayerNorm
    text_projection: nn.Parameter | nn.Linear | None
    attn_mask: Tensor | None

    def __init__(self, clip: nn.Module, tokenizer: Any) -> None:
        super().__init__()
        source: Any = getattr(clip, "text", clip)
        self.token_embedding = source.token_embedding
        self.positional_embedding = source.positional_embedding
        self.transformer = source.transformer
        self.ln_final = source.ln_final
        self.text_projection = source.text_projection
        mask = source.attn_mask
        self.register_buffer("attn_mask", mask if mask is None else mask.clone(), persistent=False)
        self.pools_last = getattr(source, "pool_type", None) == "last"
        self.tokenizer = tokenizer

    def tokenize(self, texts: Sequence[str]) -> Tensor:
        """Token indices (n, L) of texts; for a causal tower, cut after the longest text's end.

        Raises:
            UserError: If a text is longer than the tower takes.
        """
        limit = len(self.positional_embedding)
        if self.attn_mask is None or self.pools_last:
            tokens = self.tokenizer(list(texts), context_length=limit)
            longer = self.tokenizer(list(texts), context_length=2 * limit)
            self._check_length(texts, (longer[:, :limit] != tokens).any(1), limit)
            return tokens
        # With room for one token more, so that the tokenizer cuts nothing that would fit.
        tokens = self.tokenizer(list(texts), context_length=limit + 1)
        ends = tokens.argmax(dim=-1)
        self._check_length(texts, ends >= limit, limit)
        return tokens[:, : int(ends.max()) + 1]

    def _check_length(self, texts: Sequence[str], too_long: Tensor, limit: int) -> None:
        if too_long.any():
            raise UserError(
                f"the text {texts[int(too_long.int().argmax())]!r} is longer than the {limit} "
                "tokens (with start and end) that CLIP's text tower takes: use a shorter class name"
            )

    def forward(self, tokens: Tensor) -> Tensor:
        """Token indices (n, L) to text embeddings (n, D), unit length."""
        ends = tokens.argmax(dim=-1)
        if self.pools_last:
            ends = torch.full_like(ends, tokens.shape[1] - 1)
        return self.encode_embeddings(self.token_embedding(tokens), ends)

    def encode_embeddings(self, embeddings: Tensor, ends: Tensor) -> Tensor:
        """Text embeddings of sequences given as token embeddings.

        Args:
            embeddings: Token embeddings without position, shape (n, L, C).
            ends: Position of the token that stands for each sequence, shape (n,), int64.

        Returns:
            Text embeddings, shape (n, D), unit length.
        """
        length = embeddings.shape[1]
        x = embeddings + self.positional_embedding[:length]
        mask = None if self.attn_mask is None else self.attn_mask[:length, :length]
        x = self.transformer(x, attn_mask=mask)
        x = self.ln_final(x[torch.arange(x.shape[0], device=x.device), ends])
        projection = self.text_projection
        if projection is not None:
            x = projection(x) if isinstance(projection, nn.Linear) else x @ projection
        return F.normalize(x, dim=-1)


def build_text_tower(clip: nn.Module, model: str | Mapping[str, Any]) -> TextTower:
    """The text tower of a loaded CLIP with the tokenizer that belongs to ``model``."""
    check_text_tower(model)
    return TextTower(clip, build_tokenizer(model))


def build_tokenizer(model: str | Mapping[str, Any]) -> Any:
    """open_clip's tokenizer of a CLIP model (name or configuration)."""
    text = clip_config(model)["text_cfg"]
    name = text.get("hf_tokenizer_name")
    options = {"context_length": text.get("context_length", 77), **text.get("tokenizer_kwargs", {})}
    return HFTokenizer(name, **options) if name else open_clip.SimpleTokenizer(**options)


@torch.no_grad()
def encode_texts(tower: TextTower, texts: Sequence[str]) -> Tensor:
    """Texts to embeddings (n, D), unit length, float32, without a graph.

    They are encoded in batches, with a progress bar if there are many.
    """
    order = sorted(range(len(texts)), key=lambda index: len(texts[index]))  # little padding
    batches = [order[start : start + BATCH] for start in range(0, len(texts), BATCH)]
    few = len(texts) < MANY or not is_main_process()
    found = [
        tower(tower.tokenize([texts[index] for index in batch]))
        for batch in tqdm(batches, "Encoding class names", disable=few)
    ]
    return torch.cat(found).float()[torch.tensor(order).argsort()]


def cached_on_disk(key: Any, encode: Callable[[], Tensor]) -> Tensor:
    """What ``encode`` returns, which later runs read from a file in torch's cache folder.

    Args:
        key: What the result depends on, as plain values.
        encode: Called if there is no such file yet, or it cannot be read.
    """
    name = f"{bytes(digest_of(key).tolist()).hex()}.safetensors"
    file = Path(torch.hub.get_dir(), "mmseg_otseg", name)
    with suppress(Exception):  # it is not there, or damaged
        return load_file(file)["embeddings"]
    embeddings = encode()
    with suppress(OSError, SafetensorError), write_atomically(file, fsync=False) as part:
        save_file({"embeddings": embeddings}, part)
    return embeddings


def prompt_layout(tokens: Tensor, num_context: int, position: str) -> tuple[Tensor, Tensor]:
    """Which token stands at each place of a prompt.

    A prompt is the start token, the class name with M context tokens before, after or around it, a
    period, and the end token.

    Args:
        tokens: Start token, name, period and end token of every class, then zeros, shape (K, T),
            int64. The end token has the highest index.
        num_context: Context tokens, M.
        position: Where the class name stands: ``"end"`` (after the context), ``"front"`` (before
            it) or ``"middle"`` (between its halves).

    Returns:
        Two int64 tensors. Layout, shape (K, T + M): an index below T means that token of the class,
        index T + i the context token i. Ends, shape (K,): the place of the end token.
    """
    total = tokens.shape[1]
    ends = tokens.argmax(dim=-1) + num_context
    before = {"end": num_context, "middle": num_context // 2, "front": 0}[position]
    place = torch.arange(total + num_context, device=tokens.device)
    stop = ends[:, None] - num_context - 1  # place of the period among the class's tokens
    context_first = torch.where(place == 0, 0, total + place - 1)
    context_last = torch.where(
        place < stop + num_context, total + place - stop, place - num_context
    )
    name = torch.where(place < before + stop, place - before, context_last)
    return torch.where(place <= before, context_first, name), ends
