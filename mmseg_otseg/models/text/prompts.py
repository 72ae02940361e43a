"""The interface of all text prompts, and prompts made from templates, kept as a fixed table."""

from __future__ import annotations

import hashlib
import json
import logging
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from mmengine.logging import print_log
from mmengine.model import BaseModule
from mmseg.registry import MODELS
from torch import Tensor

from mmseg_otseg.errors import UserError
from mmseg_otseg.models.clip import load_clip, tower_fingerprint
from mmseg_otseg.structures.class_split import ClassSplit, SplitLike

from .templates import resolve_templates
from .text_tower import TextTower, build_text_tower, encode_texts


class TextPrompts(BaseModule):
    """N text embeddings for each of K classes, and which of the classes are seen.

    A model's vocabulary is kept here; neck and head read it from this module.
    """

    split: ClassSplit

    @property
    @abstractmethod
    def num_prompts(self) -> int:
        """Prompts per class, N."""

    @property
    @abstractmethod
    def embed_dim(self) -> int:
        """Width of the embeddings, D."""

    @abstractmethod
    def forward(self, classes: Tensor | None = None) -> Tensor:
        """Text embeddings of some classes.

        Args:
            classes: Class indices, shape (K',), int64; None is all K.

        Returns:
            Embeddings, shape (K', N, D), unit length.
        """

    @abstractmethod
    def set_classes(self, split: SplitLike) -> None:
        """Replace the vocabulary: names, and which of them are seen."""


class FrozenPrompts(TextPrompts):
    """Base of prompts whose embeddings are a fixed table, kept as a buffer.

    A checkpoint's table is loaded if it belongs to the model's vocabulary. Otherwise the model
    keeps its own table, so that a checkpoint can be tested on other classes; a fingerprint in the
    checkpoint ensures that both tables come from the same text tower.
    """

    embeddings: Tensor
    vocabulary: Tensor
    fingerprint: Tensor

    def __init__(self, init_cfg: dict[str, Any] | None = None) -> None:
        super().__init__(init_cfg)
        self.register_buffer("embeddings", torch.empty(0))
        self.register_buffer("vocabulary", torch.empty(0, dtype=torch.uint8))
        # Of the text tower that encoded the table; zeros if unknown.
        self.register_buffer("fingerprint", torch.zeros(32, dtype=torch.uint8))

    @property
    def num_prompts(self) -> int:
        return self.embeddings.shape[1]

    @property
    def embed_dim(self) -> int:
        return self.embeddings.shape[2]

    def forward(self, classes: Tensor | None = None) -> Tensor:
        return self.embeddings if classes is None else self.embeddings[classes]

    def _set_table(self, split: ClassSplit, embeddings: Tensor, source: Sequence[str]) -> None:
        self.split = split
        self.embeddings = embeddings.to(self.embeddings)
        digest = hashlib.sha256(json.dumps([split.classes, list(source)]).encode()).digest()
        self.vocabulary = torch.tensor(
            list(digest), dtype=torch.uint8, device=self.vocabulary.device
        )

    def _is_of_another_tower(self, fingerprint: Tensor) -> bool:
        """Whether a table is known to come from another text tower than the model's."""
        other, own = fingerprint.cpu(), self.fingerprint.cpu()
        return bool(other.any()) and bool(own.any()) and not torch.equal(other, own)

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any) -> None:
        # Version 0.1 did not write the fingerprint.
        tower = state_dict.setdefault(prefix + "fingerprint", self.fingerprint)
        found = state_dict.get(prefix + "vocabulary")
        if found is None or not torch.equal(found.cpu(), self.vocabulary.cpu()):
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
                else "The checkpoint's text embeddings are of other classes; the model's stay.",
                logger="current",
                level=logging.INFO,
            )
            for name in ("vocabulary", "embeddings", "fingerprint"):
                state_dict[prefix + name] = getattr(self, name)
        length = state_dict[prefix + "embeddings"].float().norm(dim=-1)
        if not (length.isfinite() & (length > 0)).all():
            raise UserError(
                f"this checkpoint is damaged: a text embedding in {prefix}embeddings is zero or "
                "not finite. Use an intact copy."
            )
        super()._load_from_state_dict(state_dict, prefix, *args)


@MODELS.register_module()
class TemplatePrompts(FrozenPrompts):
    """Class names in hand-written sentences, encoded once; CLIP's text tower is then freed.

    Args:
        clip: ``dict(model=..., pretrained=...)``, see :func:`~mmseg_otseg.models.clip.load_clip`.
        split: Class names and which are seen, see :class:`~mmseg_otseg.structures.ClassSplit`.
        templates: ``"otseg6"``, ``"otseg8"``, ``"photo"``, ``"vild"``, ``"imagenet"``, or a list of
            sentences with ``{}`` for the name.
        average: Whether each class has one prompt, the mean of its sentences' embeddings brought
            back to unit length; otherwise it has one for each sentence.

    Raises:
        UserError: If the split or the templates are invalid, or the model's text tower is not
            open_clip's own transformer.

    Source:
        The templates of OTSeg (arXiv 2403.14183), section 4.1 and supplement; ``"vild"`` and the
        mean: ViLD (arXiv 2104.13921), as ZegCLIP (arXiv 2212.03588) uses them.
    """

    def __init__(
        self,
        clip: Mapping[str, Any],
        split: SplitLike,
        templates: str | Sequence[str] = "otseg6",
        average: bool = False,
        init_cfg: dict[str, Any] | None = None,
    ) -> None:
        super().__init__(init_cfg)
        self.templates = resolve_templates(templates)
        self.average = average
        self._clip = dict(clip)
        self.set_classes(split)

    def set_classes(self, split: SplitLike) -> None:
        """Encode the names of another vocabulary (loads CLIP's text tower again).

        Args:
            split: Class names and which are seen.

        Raises:
            UserError: If a sentence is longer than the text tower takes, or the table in use was
                loaded from a checkpoint and comes from another text tower.
        """
        split = ClassSplit.build(split)
        tower = self.build_tower()
        fingerprint = tower_fingerprint(tower)
        if self._is_of_another_tower(fingerprint):
            raise UserError(
                "the model's text embeddings come from the checkpoint and were encoded by another "
                "CLIP than the one in the model's `clip` settings, so new class names would not "
                "fit. Build the model with the same `clip` settings as the training config."
            )
        texts = [
            template.replace("{}", name) for name in split.classes for template in self.templates
        ]
        embeddings = encode_texts(tower, texts).unflatten(
            0, (split.num_classes, len(self.templates))
        )
        source = list(self.templates)
        if self.average:
            embeddings = F.normalize(embeddings.mean(1, keepdim=True), dim=-1)
            source.append("average")
        self._set_table(split, embeddings, source)
        self.fingerprint = fingerprint.to(self.fingerprint)

    def build_tower(self) -> TextTower:
        """The text tower that encodes the sentences (CLIP is loaded again)."""
        return build_text_tower(load_clip(**self._clip), self._clip["model"])
