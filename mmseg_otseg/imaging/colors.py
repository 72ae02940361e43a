"""Chooses a color for each class, by its name."""

from __future__ import annotations

import colorsys
import hashlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

# What names look like, or stand for in the palettes of street scenes.
_COLORS = {
    "sky": (105, 175, 235),
    "cloud": (205, 215, 225),
    "sun": (255, 220, 90),
    "water, lake, river": (55, 120, 200),
    "sea, ocean": (20, 75, 160),
    "tree": (30, 115, 40),
    "bush": (85, 125, 30),
    "vegetation, plant": (60, 155, 70),
    "grass": (130, 195, 75),
    "field": (190, 200, 95),
    "earth, ground, soil": (135, 95, 60),
    "sand, beach": (225, 205, 150),
    "rock, stone": (155, 145, 120),
    "mountain": (120, 90, 145),
    "snow": (240, 245, 255),
    "road, street": (105, 105, 110),
    "sidewalk, pavement": (200, 160, 190),
    "building": (170, 80, 75),
    "house": (205, 125, 90),
    "wall": (150, 140, 175),
    "fence": (180, 145, 60),
    "person, people, pedestrian": (225, 30, 65),
    "rider": (255, 95, 50),
    "car": (20, 40, 110),
    "bicycle, bike": (120, 15, 45),
    "traffic light": (250, 165, 30),
    "traffic sign, sign": (225, 215, 20),
}
COLORS = {name: color for names, color in _COLORS.items() for name in names.split(", ")}
TRIES = 24
FAR_ENOUGH = 60.0  # a distance in RGB at which two colors are told apart at a glance
FAR_ENOUGH_KNOWN = 30.0  # a color that a name is known for may be nearer to others


def palette_for(names: Sequence[str], known: Mapping[str, Any] | None = None) -> list[list[int]]:
    """A color for each class: the same name has the same color in every image and run.

    The exception is a name whose color would hardly differ from that of an earlier name in the
    list; it gets another one of its own.

    Args:
        names: Class names.
        known: ``classes`` and ``palette`` of a dataset; its classes keep their colors.

    Returns:
        RGB values in 0..255 for each class.
    """
    colors = (known or {}).get("palette")
    own = [] if colors is None else np.array(colors).tolist()
    fixed = dict(zip((known or {}).get("classes") or (), own))
    palette: list[list[int]] = []
    for name in names:
        palette.append(fixed[name] if name in fixed else _new_color(name, palette))
    return palette


def _new_color(name: str, taken: Sequence[Sequence[int]]) -> list[int]:
    """The first color of a name that is far enough from those taken, or else the farthest."""
    words = " ".join(name.lower().replace("_", " ").split())
    others = np.array(taken).reshape(-1, 3)

    def distance(color: Sequence[int]) -> float:
        return float(np.sqrt(np.square(others - color).sum(1)).min(initial=np.inf))

    for word in (words, words.removesuffix("s")):
        color = COLORS.get(word)
        if color is not None and distance(color) >= FAR_ENOUGH_KNOWN:
            return list(color)
    colors = []
    for attempt in range(TRIES):
        digest = hashlib.sha256(f"{words} {attempt}".encode()).digest()
        hue = int.from_bytes(digest[:2], "big") / 65536
        saturation, value = 0.5 + 0.45 * digest[2] / 255, 0.55 + 0.45 * digest[3] / 255
        rgb = colorsys.hsv_to_rgb(hue, saturation, value)
        colors.append([round(255 * part) for part in rgb])
        if distance(colors[-1]) >= FAR_ENOUGH:
            return colors[-1]
    return max(colors, key=distance)
