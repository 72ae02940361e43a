"""ZegOT's text prompts: learned context tokens around the class name."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from mmengine.model import BaseModule
from mmseg.registry import MODELS
from torch import Tensor, nn

from mmseg_otseg.errors import UserError, check_option
from mmseg_otseg.models.clip import FrozenTower, check_text_tower, clip_embed_dim, load_clip
from mmseg_otseg.structures.class_split import ClassSplit, SplitLike

from .prompts import TextPrompts, digest_of, rename_old_digest
from .text_tower import BATCH, POSITIONS, TextTower, build_text_tower, prompt_layout

INIT_STD = 0.02  # of random context tokens, CLIP's own for its token table
# Without noise, contexts that start from the same text would stay equal to each other.
TEXT_INIT_STD = 0.1 * INIT_STD


@MODELS.register_module()
class LearnablePrompts(TextPrompts):
    """N learned contexts of M tokens around each class name, encoded by CLIP's frozen text tower.

    In training, the requested classes are encoded at each call, and gradients reach the contexts.
    In testing, all classes are encoded once, and again only after something that may change the
    result: other contexts or weights, another device or precision, or a new vocabulary.

    Args:
        clip: ``dict(model=..., pretrained=...)``, see :func:`~mmseg_otseg.models.clip.load_clip`.
        split: Class names and which are seen, see :class:`~mmseg_otseg.structures.ClassSplit`.
        num_prompts: Number of contexts, N.
        num_tokens: Tokens per context, M. None: as many as ``init_text`` has, or 8 without one.
        position: Where the class name stands: ``"end"`` (after the context), ``"front"`` (before
            it) or ``"middle"`` (between its halves).
        per_class: Whether every class has its own contexts. Their checkpoint fits only the
            vocabulary it was trained with; fine-tuning on other classes keeps the contexts of the
            names that both have, see :class:`~mmseg_otseg.engine.hooks.FineTuneHook`.
        init_text: Words to initialize the contexts with, such as ``"a photo of a"``. None draws
            random numbers.

    Raises:
        UserError: If an option makes no sense, a prompt is longer than the text tower takes, or
            the text tower is not CLIP's causal one.

    Source:
        ZegOT (arXiv 2301.12171); the contexts: Zhou et al., "Learning to Prompt for Vision-Language
        Models" (IJCV 2022).
    """

    def __init__(
        self,
        clip: Mapping[str, Any],
        split: SplitLike,
        num_prompts: int = 6,
        num_tokens: int | None = None,
        position: str = "end",
        per_class: bool = False,
        init_text: str | None = None,
        init_cfg: dict[str, Any] | None = None,
    ) -> None:
        super().__init__(init_cfg)
        check_option("position", position, POSITIONS)
        self.position, self.per_class = position, per_class
        self._embed_dim = clip_embed_dim(clip["model"])
        check_text_tower(clip["model"], learnable=True)
        tower = build_text_tower(load_clip(**clip), clip["model"])
        self.tower = FrozenTower(tower, precision=clip.get("precision", "fp32"))
        self._table: Tensor | None = None  # all names, encoded in testing
        contexts = self._init_contexts(num_prompts, num_tokens, init_text)
        self.register_buffer("init_contexts", contexts, persistent=False)
        self.register_buffer("tokens", torch.empty(0, dtype=torch.int64), persistent=False)
        self.contexts = nn.Parameter(contexts.clone())
        if per_class:
            self.register_buffer("vocabulary_digest", torch.empty(0, dtype=torch.uint8))
            self.contexts = nn.Parameter(contexts.new_empty(0, *contexts.shape))
        self.set_classes(split)

    init_contexts: Tensor
    tokens: Tensor
    vocabulary_digest: Tensor

    @property
    def text_tower(self) -> TextTower:
        """CLIP's frozen text tower."""
        tower: Any = self.tower.module
        return tower

    @property
    def num_prompts(self) -> int:
        return self.contexts.shape[-3]

    @property
    def num_tokens(self) -> int:
        """Tokens of a context, M."""
        return self.contexts.shape[-2]

    @property
    def embed_dim(self) -> int:
        return self._embed_dim

    def forward(self, names: Tensor | None = None) -> Tensor:
        """Text embeddings of some names, see :meth:`TextPrompts.forward`."""
        if self.training or torch.is_grad_enabled():
            return self._encode_names(slice(None) if names is None else names)
        if self._table is None:
            step = max(1, BATCH // self.num_prompts)  # names at a time
            starts = range(0, len(self.tokens), step)
            parts = [self._encode_names(slice(start, start + step)) for start in starts]
            self._table = torch.cat(parts)
        return self._table if names is None else self._table[names]

    def set_classes(self, split: SplitLike) -> None:
        """Replace the vocabulary. With ``per_class``, names that stay keep their contexts.

        Args:
            split: Class names and which are seen.
        """
        split = ClassSplit.build(split)
        tokens = self.text_tower.tokenize([f"{name}." for name in split.texts])
        _, ends = prompt_layout(tokens, self.num_tokens, self.position)
        limit = len(self.text_tower.positional_embedding)
        if int(ends.max()) >= limit:
            raise UserError(
                f"the prompt of the name {split.texts[int(ends.argmax())]!r} has "
                f"{int(ends.max()) + 1} tokens, CLIP's text tower takes {limit}: use fewer context "
                "tokens (num_tokens) or a shorter name"
            )
        known = self.split.texts if hasattr(self, "split") else ()
        self.split, self.tokens = split, tokens.to(self.contexts.device)
        if self.per_class:
            self.contexts = nn.Parameter(self.contexts_from(known, self.contexts.data))
            self.vocabulary_digest = digest_of(split.joined_names).to(self.contexts.device)
        self._table = None

    def contexts_from(self, names: Sequence[str], contexts: Tensor) -> Tensor:
        """Contexts (K, N, M, C) for this vocabulary, if there is one for each class.

        They are those of another one (K', N, M, C) for the names that both have, and new ones for
        the rest.
        """
        rows, new = dict(zip(names, contexts)), self.init_contexts
        return torch.stack([rows.get(name, new).to(new) for name in self.split.texts])

    def train(self, mode: bool = True) -> LearnablePrompts:
        """Switch between training and testing; the classes are then encoded again."""
        self._table = None
        return super().train(mode)

    def _apply(self, fn: Callable, *args: Any, **kwargs: Any) -> BaseModule:
        self._table = None
        return super()._apply(fn, *args, **kwargs)

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any) -> None:
        self._table = None
        rename_old_digest(state_dict, prefix)
        found = state_dict.get(prefix + "vocabulary_digest")
        own = self.vocabulary_digest if self.per_class else None  # shared contexts belong to none
        if own is not None and found is not None and not torch.equal(found.cpu(), own.cpu()):
            raise UserError(
                "this checkpoint has contexts of its own for each class of another vocabulary: "
                "build the model with the vocabulary of the training config, load the checkpoint, "
                "then change the classes (mmseg_otseg.inference.set_classes)"
            )
        super()._load_from_state_dict(state_dict, prefix, *args)

    def _init_contexts(self, prompts: int, length: int | None, text: str | None) -> Tensor:
        """Contexts before training, shape (N, M, C)."""
        width = self.text_tower.token_embedding.weight.shape[1]
        if text is None:
            return INIT_STD * torch.randn(prompts, length or 8, width)
        tokens = self.text_tower.tokenize([text])[0, 1:-1]
        if not len(tokens) or (length is not None and length != len(tokens)):
            raise UserError(
                f"init_text={text!r} has {len(tokens)} tokens, but num_tokens is {length}: leave "
                "num_tokens out, or give a text of that length"
            )
        with torch.no_grad():
            contexts = self.text_tower.token_embedding(tokens).float().repeat(prompts, 1, 1)
        contexts[1:] += TEXT_INIT_STD * torch.randn_like(contexts[1:])
        return contexts

    def _encode_names(self, names: slice | Tensor) -> Tensor:
        """Text embeddings (Q', N, D) of the names (Q',)."""
        contexts = self.contexts[names] if self.per_class else self.contexts
        return self._encode(contexts, self.tokens[names])

    def encode_tokens(self, tokens: Tensor) -> Tensor:
        """Text embeddings of names that are not in the vocabulary.

        Args:
            tokens: Start token, name, period, end token, then zeros; shape (n, T), int64. T and
                the tokens of a context together are at most what the text tower takes.

        Returns:
            Embeddings, shape (n, N, D), unit length.
        """
        return self._encode(self.init_contexts if self.per_class else self.contexts, tokens)

    def _encode(self, contexts: Tensor, tokens: Tensor) -> Tensor:
        """Text embeddings (n, N, D) of tokens (n, T) in contexts (N, M, C) or (n, N, M, C)."""
        layout, ends = prompt_layout(tokens, self.num_tokens, self.position)
        number = tokens.shape[0]
        words = self.text_tower.token_embedding(tokens)
        words = words[:, None].expand(-1, self.num_prompts, -1, -1)
        contexts = contexts.expand(number, -1, -1, -1).to(words.dtype)
        places = layout[:, None, :, None]
        places = places.expand(-1, self.num_prompts, -1, words.shape[-1])
        prompts = torch.cat([words, contexts], dim=2).gather(2, places)
        ends = ends[:, None].expand(-1, self.num_prompts).flatten()
        encoded = self.text_tower.encode_embeddings(prompts.flatten(0, 1), ends)
        # Again in full precision: under autocast the tower's own normalization is rounded.
        encoded = F.normalize(encoded.to(self.contexts.dtype), dim=-1)
        return encoded.unflatten(0, (number, self.num_prompts))
