"""Frozen text prompts: from templates, or precomputed."""

from __future__ import annotations

import hashlib
import json
import logging
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from mmengine.logging import print_log
from mmengine.model import BaseModule
from mmseg.registry import MODELS
from torch import Tensor

from mmseg_otseg.models.clip import load_clip
from mmseg_otseg.structures.class_split import ClassSplit

from .templates import resolve_templates
from .text_tower import build_text_tower, encode_texts

SplitLike = str | Mapping[str, Any] | ClassSplit


class TextPrompts(BaseModule):
    """N text embeddings for each of K classes, and which of the classes are seen.

    This is where a model knows its vocabulary: neck and head read it from here.
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
    """Base of prompts that are a fixed table, kept as a buffer.

    A checkpoint's table is taken over if it is the one of this vocabulary; otherwise, or if it has
    none, the model keeps its own, so that a checkpoint can be tested on another vocabulary.
    """

    embeddings: Tensor
    vocabulary: Tensor

    def __init__(self, init_cfg: dict[str, Any] | None = None) -> None:
        super().__init__(init_cfg)
        self.register_buffer("embeddings", torch.empty(0))
        self.register_buffer("vocabulary", torch.empty(0, dtype=torch.uint8))

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
        self.embeddings = embeddings.to(self.embeddings.device)
        digest = hashlib.sha256(json.dumps([split.classes, list(source)]).encode()).digest()
        self.vocabulary = torch.tensor(
            list(digest), dtype=torch.uint8, device=self.vocabulary.device
        )

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any) -> None:
        found = state_dict.get(prefix + "vocabulary")
        if found is None or not torch.equal(found.cpu(), self.vocabulary.cpu()):
            print_log(
                "The checkpoint has no text embeddings: the model makes its own."
                if found is None
                else "The checkpoint's text embeddings name other classes: ours stay.",
                logger="current",
                level=logging.INFO,
            )
            state_dict[prefix + "vocabulary"] = self.vocabulary
            state_dict[prefix + "embeddings"] = self.embeddings
        super()._load_from_state_dict(state_dict, prefix, *args)


@MODELS.register_module()
class TemplatePrompts(FrozenPrompts):
    """Class names in hand-written sentences, encoded once; CLIP's text tower is then freed.

    Args:
        clip: ``dict(model=..., pretrained=...)``, see :func:`~mmseg_otseg.models.clip.load_clip`.
        split: Class names and which are seen, see :class:`~mmseg_otseg.structures.ClassSplit`.
        templates: ``"otseg6"``, ``"otseg8"``, ``"photo"``, ``"vild"``, or a list of sentences with
            ``{}`` for the name.
        average: Whether each class has one prompt, the mean of its sentences' embeddings brought
            back to unit length; otherwise it has one for each sentence.

    Raises:
        ValueError: If the split or the templates make no sense, or the model's text tower is no
            causal CLIP one.

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
        """
        split = ClassSplit.build(split)
        tower = build_text_tower(load_clip(**self._clip), self._clip["model"])
        texts = [template.format(name) for name in split.classes for template in self.templates]
        embeddings = encode_texts(tower, texts).unflatten(
            0, (split.num_classes, len(self.templates))
        )
        source = list(self.templates)
        if self.average:
            embeddings = F.normalize(embeddings.mean(1, keepdim=True), dim=-1)
            source.append("average")
        self._set_table(split, embeddings, source)


@MODELS.register_module()
class PrecomputedPrompts(FrozenPrompts):
    """Text embeddings from a ``.npy`` file.

    Args:
        path: A float array of shape (K, N, D), or (K, D) for one prompt per class; classes in the
            split's order.
        split: Class names and which are seen.
        clip: Not used; accepted so that a neck can offer it to any prompts.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it holds no such array, or as many rows as there are classes are not in it.
    """

    def __init__(
        self,
        path: str,
        split: SplitLike,
        clip: Mapping[str, Any] | None = None,
        init_cfg: dict[str, Any] | None = None,
    ) -> None:
        super().__init__(init_cfg)
        self.path = path
        self.set_classes(split)

    def set_classes(self, split: SplitLike) -> None:
        """Read the file again for another vocabulary of as many classes.

        Args:
            split: Class names and which are seen.
        """
        split = ClassSplit.build(split)
        array = _read_embeddings(Path(self.path).expanduser())
        if len(array) != split.num_classes:
            raise ValueError(
                f"{self.path} holds embeddings of {len(array)} classes, but the vocabulary has "
                f"{split.num_classes}: {', '.join(split.classes[:5])}, ..."
            )
        self._set_table(split, F.normalize(torch.from_numpy(array), dim=-1), [self.path])


def _read_embeddings(path: Path) -> np.ndarray:
    """The (K, N, D) float32 array in a .npy file."""
    if not path.is_file():
        raise FileNotFoundError(
            f"text embeddings {str(path)!r} not found: give a .npy file of shape (K, N, D)"
        )
    try:
        array = np.load(path, allow_pickle=False)
    except (ValueError, EOFError, OSError) as error:
        raise ValueError(f"cannot read text embeddings from {path}: {error}") from error
    if array.ndim == 2:
        array = array[:, None]
    if array.ndim != 3 or not np.issubdtype(array.dtype, np.floating) or array.size == 0:
        raise ValueError(
            f"{path} must hold a float array of shape (K, N, D), found {array.dtype} {array.shape}"
        )
    return array.astype(np.float32)
