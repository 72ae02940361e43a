"""The interface of all text prompts, and prompts that are a fixed table."""

from __future__ import annotations

import hashlib
import json
import logging
from abc import abstractmethod
from collections.abc import Sequence
from typing import Any

import torch
from mmengine.logging import print_log
from mmengine.model import BaseModule
from torch import Tensor

from mmseg_otseg.errors import UserError
from mmseg_otseg.structures.class_split import ClassSplit, SplitLike


class TextPrompts(BaseModule):
    """N text embeddings for each of Q names, and which of the classes are seen.

    A model's vocabulary is kept here; neck and head read it from this module. The names are those
    of ``split.texts``: Q is the number of classes, K, unless a class has several names.
    """

    split: ClassSplit

    @property
    @abstractmethod
    def num_prompts(self) -> int:
        """Prompts per name, N."""

    @property
    @abstractmethod
    def embed_dim(self) -> int:
        """Width of the embeddings, D."""

    @abstractmethod
    def forward(self, names: Tensor | None = None) -> Tensor:
        """Text embeddings of some names.

        Args:
            names: Indices into ``split.texts``, shape (Q',), int64; None is all Q.

        Returns:
            Embeddings, shape (Q', N, D), unit length.
        """

    @abstractmethod
    def set_classes(self, split: SplitLike) -> None:
        """Replace the vocabulary: names, and which of them are seen."""


def digest_of(content: Any) -> Tensor:
    """SHA-256 of plain values, as 32 uint8 values."""
    return torch.tensor(list(hashlib.sha256(json.dumps(content).encode()).digest())).byte()


def rename_old_digest(state_dict: dict[str, Any], prefix: str) -> None:
    """Rename what version 0.2 called ``vocabulary`` in a state dict."""
    if prefix + "vocabulary" in state_dict:
        state_dict[prefix + "vocabulary_digest"] = state_dict.pop(prefix + "vocabulary")


class FrozenPrompts(TextPrompts):
    """Base of prompts whose embeddings are a fixed table, kept as a buffer.

    A checkpoint's table is loaded if it belongs to the model's vocabulary. Otherwise the model
    keeps its own table, so that a checkpoint can be tested on other classes; a fingerprint in the
    checkpoint ensures that both tables come from the same text tower.
    """

    embeddings: Tensor
    vocabulary_digest: Tensor
    fingerprint: Tensor

    def __init__(self, init_cfg: dict[str, Any] | None = None) -> None:
        super().__init__(init_cfg)
        self.register_buffer("embeddings", torch.empty(0))
        self.register_buffer("vocabulary_digest", torch.empty(0, dtype=torch.uint8))
        # Of the text tower that encoded the table; zeros if unknown.
        self.register_buffer("fingerprint", torch.zeros(32, dtype=torch.uint8))

    @property
    def num_prompts(self) -> int:
        return self.embeddings.shape[1]

    @property
    def embed_dim(self) -> int:
        return self.embeddings.shape[2]

    def forward(self, names: Tensor | None = None) -> Tensor:
        return self.embeddings if names is None else self.embeddings[names]

    def _set_table(self, split: ClassSplit, embeddings: Tensor, source: Sequence[Any]) -> None:
        self.split = split
        self.embeddings = embeddings.to(self.embeddings)
        content = [split.joined_names, list(source)]
        self.vocabulary_digest = digest_of(content).to(self.embeddings.device)

    def _is_of_another_tower(self, fingerprint: Tensor) -> bool:
        """Whether a table is known to come from another text tower than the model's."""
        other, own = fingerprint.cpu(), self.fingerprint.cpu()
        return bool(other.any()) and bool(own.any()) and not torch.equal(other, own)

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any) -> None:
        # Version 0.1 did not write the fingerprint.
        tower = state_dict.setdefault(prefix + "fingerprint", self.fingerprint)
        rename_old_digest(state_dict, prefix)
        found = state_dict.get(prefix + "vocabulary_digest")
        if found is None or not torch.equal(found.cpu(), self.vocabulary_digest.cpu()):
            if self._is_of_another_tower(tower):
                raise UserError(
                    "this checkpoint was trained with text of another CLIP than the one that the "
                    "model encodes its class names with. Build the model with the same `clip` "
                    "settings (model, pretrained, quick_gelu and, for random weights, seed) as the "
                    "training config."
                )
            print_log(
                "The checkpoint has no text embeddings: the model makes its own."
                if found is None
                else "The checkpoint's text embeddings are of other classes or prompts; the model "
                "keeps its own.",
                logger="current",
                level=logging.INFO,
            )
            for name in ("vocabulary_digest", "embeddings", "fingerprint"):
                state_dict[prefix + name] = getattr(self, name)
        super()._load_from_state_dict(state_dict, prefix, *args)
