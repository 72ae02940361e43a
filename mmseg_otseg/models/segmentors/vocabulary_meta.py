"""The classes that a segmentor shows to mmseg's visualizers and tools."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mmseg_otseg.imaging import palette_for


class VocabularyMeta:
    """A segmentor whose ``dataset_meta`` always names the classes of its text prompts.

    mmseg's ``init_model`` and ``MMSegInferencer`` give a model the ``dataset_meta`` of its
    checkpoint. A model tested on another dataset has other classes than that, in another order, so
    only the colors of equal names are taken from it.
    """

    neck: Any
    _given_meta: Mapping[str, Any] | None = None

    @property
    def dataset_meta(self) -> dict[str, Any]:
        """``classes``, the K names, and ``palette``, a color for each, and no other key."""
        given = self._given_meta or {}
        text = getattr(getattr(self, "neck", None), "text", None)
        names = given.get("classes", ()) if text is None else text.split.classes
        return {"classes": tuple(names), "palette": palette_for(names, given)}

    @dataset_meta.setter
    def dataset_meta(self, given: Mapping[str, Any] | None) -> None:
        self._given_meta = given
