"""Text prompts that are class names in hand-written sentences."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
import yaml
from mmseg.registry import MODELS
from open_clip import OPENAI_IMAGENET_TEMPLATES
from torch import Tensor

from mmseg_otseg.errors import UserError
from mmseg_otseg.models.clip import load_clip, tower_fingerprint
from mmseg_otseg.structures.class_split import ClassSplit, SplitLike

from .prompts import FrozenPrompts
from .text_tower import TextTower, build_text_tower, cached_on_disk, encode_texts

OTSEG_6 = (
    "a photo of a {}.",
    "a portrait of a {}.",
    "a part of a {}.",
    "a segment of a {}.",
    "a photo of small {}.",
    "a photo of medium {}.",
)
OTSEG_8 = (*OTSEG_6, "a photo of large {}.", "a background of a {}.")
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
# The 80 sentences of CLIP's zero-shot classifier of ImageNet (arXiv 2103.00020).
IMAGENET = tuple(template("{}") for template in OPENAI_IMAGENET_TEMPLATES)

TEMPLATES: dict[str, tuple[str, ...]] = {
    "otseg6": OTSEG_6,
    "otseg8": OTSEG_8,
    "photo": OTSEG_6[:1],
    "vild": VILD,
    "imagenet": IMAGENET,
}
SENTENCE_FILES = (".json", ".yaml", ".yml")


def resolve_templates(templates: str | Sequence[str]) -> tuple[str, ...]:
    """Templates by name, or as a list of sentences with one ``{}`` for the class name.

    Raises:
        UserError: If the name is unknown, the list is empty, or a sentence does not have exactly
            one ``{}``.
    """
    if isinstance(templates, str):
        if templates not in TEMPLATES:
            raise UserError(
                f"unknown templates {templates!r}; known: {', '.join(TEMPLATES)}, or give a list "
                "of sentences with {} for the class name, or a .json or .yaml file with sentences "
                "for each name"
            )
        return TEMPLATES[templates]
    sentences = tuple(templates)
    wrong = [text for text in sentences if text.count("{}") != 1]
    if not sentences or wrong:
        raise UserError(
            f"each template needs exactly one {{}} for the class name, got {wrong or 'none'}"
        )
    return sentences


def read_sentences(given: Mapping[str, Any] | str) -> dict[str, tuple[str, ...]]:
    """The sentences of each name, as a mapping or in a JSON or YAML file.

    Raises:
        FileNotFoundError: If there is no such file.
        UserError: If it cannot be read, or does not hold a list of sentences for each name.
    """
    content: Any = given
    if isinstance(given, str):
        try:  # JSON is YAML
            content = yaml.safe_load(Path(given).expanduser().read_text(encoding="utf-8"))
        except (ValueError, yaml.YAMLError) as error:
            raise UserError(f"cannot read the sentences in {given}: {error}") from error
    if not isinstance(content, Mapping) or not content:
        raise UserError("sentences are given as {name: [sentences]}" + f", got {content!r:.80}")
    found = {}
    for name, sentences in content.items():
        listed = [sentences] if isinstance(sentences, str) else sentences
        if (
            not isinstance(listed, Sequence)
            or not listed
            or not all(isinstance(text, str) and text.strip() for text in listed)
        ):
            raise UserError(f"{name!r} needs a list of sentences, got {sentences!r:.80}")
        found[str(name)] = tuple(listed)
    return found


@MODELS.register_module()
class TemplatePrompts(FrozenPrompts):
    """Class names in hand-written sentences, encoded once; CLIP's text tower is then freed.

    Embeddings are kept in torch's cache folder (``torch.hub.get_dir()``), for later runs with the
    same CLIP, names and templates.

    Args:
        clip: ``dict(model=..., pretrained=...)``, see :func:`~mmseg_otseg.models.clip.load_clip`.
        split: Class names and which are seen, see :class:`~mmseg_otseg.structures.ClassSplit`.
        templates: ``"otseg6"``, ``"otseg8"``, ``"photo"``, ``"vild"``, ``"imagenet"``, or a list of
            sentences with ``{}`` for the name. Or sentences of each name's own, as a language model
            may write them: ``{name: [sentences]}``, or a JSON or YAML file of that; they take
            ``average=True``.
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
        templates: str | Sequence[str] | Mapping[str, Sequence[str]] = "otseg6",
        average: bool = False,
        init_cfg: dict[str, Any] | None = None,
    ) -> None:
        super().__init__(init_cfg)
        in_file = isinstance(templates, str) and Path(templates).suffix in SENTENCE_FILES
        self.sentences: dict[str, tuple[str, ...]] | None = None
        self.templates: tuple[str, ...] = ()
        if in_file or isinstance(templates, Mapping):
            self.sentences = read_sentences(templates)  # type: ignore[arg-type]
            if not average:
                raise UserError(
                    "names with sentences of their own have one text embedding, the mean: set "
                    "average=True beside `templates`"
                )
        else:
            self.templates = resolve_templates(templates)
        self.average = average
        self._clip = dict(clip)
        self.set_classes(split)

    def set_classes(self, split: SplitLike) -> None:
        """Encode the names of another vocabulary (loads CLIP's text tower again).

        Args:
            split: Class names and which are seen.

        Raises:
            UserError: If a sentence is longer than the text tower takes, a name has no sentences,
                or the table in use was loaded from a checkpoint and comes from another text tower.
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
        sentences = [self._sentences_of(name) for name in split.texts]
        clip = [bytes(fingerprint.tolist()).hex(), self._clip["model"]]
        key = [*clip, sentences, self.average]
        table = cached_on_disk(key, lambda: self._encode(tower, sentences))
        source = list(self.templates) if self.sentences is None else list(sentences)
        self._set_table(split, table, [*source, "average"] if self.average else source)
        self.fingerprint = fingerprint.to(self.fingerprint)

    def _encode(self, tower: TextTower, sentences: Sequence[Sequence[str]]) -> Tensor:
        """The embeddings (Q, N, D) of the sentences of Q names."""
        encoded = encode_texts(tower, [text for texts in sentences for text in texts])
        parts = encoded.split([len(texts) for texts in sentences])  # (N, D) each
        if self.average:
            parts = tuple(F.normalize(part.mean(0, keepdim=True), dim=-1) for part in parts)
        return torch.stack(parts)

    def _sentences_of(self, name: str) -> Sequence[str]:
        if self.sentences is None:
            return [template.replace("{}", name) for template in self.templates]
        if name not in self.sentences:
            raise UserError(
                f"there are no sentences for the name {name!r}, but for "
                f"{', '.join(list(self.sentences)[:10])}: add them, or use templates"
            )
        return [sentence.replace("{}", name) for sentence in self.sentences[name]]

    def build_tower(self) -> TextTower:
        """The text tower that encodes the sentences (CLIP is loaded again)."""
        return build_text_tower(load_clip(**self._clip), self._clip["model"])
