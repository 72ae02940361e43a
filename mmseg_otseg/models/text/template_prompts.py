"""Text prompts that are class names in hand-written sentences."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

import torch.nn.functional as F
from mmseg.registry import MODELS

from mmseg_otseg.errors import UserError
from mmseg_otseg.models.clip import load_clip, tower_fingerprint
from mmseg_otseg.structures.class_split import ClassSplit, SplitLike

from .prompts import FrozenPrompts
from .text_tower import TextTower, build_text_tower, encode_texts

OTSEG_6 = (
    "a photo of a {}.",
    "a portrait of a {}.",
    "a part of a {}.",
    "a segment of a {}.",
    "a photo of small {}.",
    "a photo of medium {}.",
)
OTSEG_8 = (*OTSEG_6, "a photo of large {}.", "a background of a {}.")
PHOTO = ("a photo of a {}.",)
VILD = (
    "a photo of a {}.",
    "a photo of a small {}.",
    "a photo of a medium {}.",
    "a photo of a large {}.",
    "This is a photo of a {}.",
    "This is a photo of a small {}.",
    "This is a photo of a medium {}.",
    "This is a photo of a large {}.",
    "a {} in the scene.",
    "a photo of a {} in the scene.",
    "There is a {} in the scene.",
    "There is the {} in the scene.",
    "This is a {} in the scene.",
    "This is the {} in the scene.",
    "This is one {} in the scene.",
)

TEMPLATES: dict[str, tuple[str, ...]] = {
    "otseg6": OTSEG_6,
    "otseg8": OTSEG_8,
    "photo": PHOTO,
    "vild": VILD,
}
OTHER_BRACE = re.compile(r"\{(?!\})|(?<!\{)\}")  # a brace that is not part of "{}"


def resolve_templates(templates: str | Sequence[str]) -> tuple[str, ...]:
    """Templates by name, or as a list of sentences with one ``{}`` for the class name.

    Raises:
        UserError: If the name is unknown, the list is empty, or a sentence does not have exactly
            one ``{}``, or has other braces.
    """
    if isinstance(templates, str):
        if templates not in TEMPLATES:
            raise UserError(
                f"unknown templates {templates!r}; known: {', '.join(TEMPLATES)}, or give a list "
                "of sentences with {} for the class name"
            )
        return TEMPLATES[templates]
    sentences = tuple(templates)
    wrong = [text for text in sentences if text.count("{}") != 1 or OTHER_BRACE.search(text)]
    if not sentences or wrong:
        raise UserError(
            "each template needs exactly one {} for the class name and no other braces, got "
            f"{wrong or 'none'}"
        )
    return sentences


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
