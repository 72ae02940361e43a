"""Hand-written prompt templates."""

from __future__ import annotations

import re
from collections.abc import Sequence

from open_clip import OPENAI_IMAGENET_TEMPLATES

from mmseg_otseg.errors import UserError

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
# The 80 sentences of CLIP's zero-shot classifier of ImageNet (arXiv 2103.00020).
IMAGENET = tuple(template("{}") for template in OPENAI_IMAGENET_TEMPLATES)

TEMPLATES: dict[str, tuple[str, ...]] = {
    "otseg6": OTSEG_6,
    "otseg8": OTSEG_8,
    "photo": PHOTO,
    "vild": VILD,
    "imagenet": IMAGENET,
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
