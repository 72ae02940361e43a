"""Parses class names typed by a user, and chooses a color for each."""

from __future__ import annotations

import colorsys
import csv
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from mmseg_otseg.errors import UserError

GOLDEN_RATIO = 0.618034


def class_names(text: str) -> list[str]:
    """Split names separated by commas; a name that contains a comma must be in double quotes.

    Example:
        >>> class_names('cat, "chair, wooden", sofa')
        ['cat', 'chair, wooden', 'sofa']

    Raises:
        UserError: If a quote is not closed.
    """
    try:
        rows = list(csv.reader([text], skipinitialspace=True, strict=True))
    except csv.Error as error:
        raise UserError(f"cannot parse the class names in {text!r}: {error}") from error
    return [name.strip() for name in rows[0]] if rows and rows[0] else [text.strip()]


def palette_for(names: Sequence[str], known: Mapping[str, Any] | None = None) -> list[list[int]]:
    """A color for each class.

    Args:
        names: Class names.
        known: ``classes`` and ``palette`` of a dataset; its classes keep their colors. A palette
            that is not a (K, 3) array of values in 0..255 is ignored.

    Returns:
        RGB values in 0..255 for each class. Other classes get hues spaced by the golden ratio, so
        that successive classes look different.
    """
    colors = _known_colors(known or {})
    palette = []
    for index, name in enumerate(names):
        hue, dim = (index * GOLDEN_RATIO) % 1, 0.15 * (index % 3)
        new = [round(255 * part) for part in colorsys.hsv_to_rgb(hue, 0.85 - dim, 1 - dim)]
        palette.append(colors.get(name, new))
    return palette


def _known_colors(known: Mapping[str, Any]) -> dict[str, list[int]]:
    names = known.get("classes") or ()
    try:
        palette = np.asarray(known.get("palette"), dtype=np.float64)
    except (TypeError, ValueError):
        return {}
    if palette.shape != (len(names), 3) or not ((palette >= 0) & (palette <= 255)).all():
        return {}
    return dict(zip(names, palette.round().astype(int).tolist()))
