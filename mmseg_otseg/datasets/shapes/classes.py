"""The twenty classes of the shapes benchmark: five colors times four shapes."""

from __future__ import annotations

COLORS: dict[str, tuple[int, int, int]] = {
    "red": (205, 50, 45),
    "green": (55, 160, 70),
    "blue": (55, 85, 200),
    "yellow": (220, 195, 60),
    "purple": (140, 60, 165),
}
"""Mean RGB value of each color name."""

SHAPES: tuple[str, ...] = ("circle", "square", "triangle", "cross")

SHAPES_CLASSES: tuple[str, ...] = tuple(f"{c} {s}" for c in COLORS for s in SHAPES)
"""Class ``i`` has color ``i // 4`` and shape ``i % 4``."""

SHAPES_UNSEEN: tuple[str, ...] = (
    "red cross",
    "green square",
    "blue triangle",
    "yellow circle",
    "purple square",
)
"""The unseen classes. All of their colors and shapes also occur in seen classes."""

SHAPES_UNSEEN_INDICES: tuple[int, ...] = tuple(SHAPES_CLASSES.index(n) for n in SHAPES_UNSEEN)

SHAPES_PALETTE: list[list[int]] = [
    [int(channel * shade) for channel in rgb]
    for rgb in COLORS.values()
    for shade in (1.0, 0.8, 0.6, 0.4)
]
"""One RGB value per class: its color, darker from circle to cross."""
