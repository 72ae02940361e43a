"""The classes of the shapes benchmark, and its worlds ("cameras")."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from mmseg_otseg.errors import UserError

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

Range = tuple[float, float]
Color = tuple[float, float, float]


@dataclass(frozen=True)
class World:
    """How the scenes of one world are composed and photographed.

    A photograph of the composed image ``x`` is ``x * (1 - a) + t * a`` plus sensor noise, with one
    airlight color ``t`` and one severity ``a`` per image. A light ``t`` gives haze, a dark ``t``
    low light. Sensor noise is added last, so it is not reduced along with the contrast.

    Args:
        name: Name of the world.
        objects: Minimum and maximum number of objects.
        radius: Minimum and maximum object radius, as a fraction of the shorter image side.
        clutter: Minimum and maximum number of gray clutter strokes, labeled as background.
        noise: Maximum sensor noise (triangular distribution), for pixel values 0..255.
        severity: Mean of ``a`` over the images, 0..0.95; 0 means no shift.
        spread: ``a`` is uniform in ``severity - spread .. severity + spread``, clipped to 0..0.97.
        airlight: Darkest and lightest airlight color ``t``, RGB in 0..255.
    """

    name: str
    objects: tuple[int, int]
    radius: Range
    clutter: tuple[int, int]
    noise: float = 16.0
    severity: float = 0.0
    spread: float = 0.09
    airlight: tuple[Color, Color] = ((0.0, 0.0, 0.0), (0.0, 0.0, 0.0))

    def __post_init__(self) -> None:
        if not 0.0 <= self.severity <= 0.95:
            raise UserError(
                f"severity of world {self.name!r} is {self.severity}; it must lie in 0..0.95"
            )


# The severities below are the largest multiples of 0.05 up to which CLIP names 90 % of images with
# a single object (tools/shapes/evaluate_clip.py). They belong to the shipped CLIP; do not tune them
# for a method.
_CROWD = World("crowd", objects=(4, 7), radius=(0.10, 0.21), clutter=(2, 4))

WORLDS: Mapping[str, World] = {
    world.name: world
    for world in (
        World("clean", objects=(1, 3), radius=(0.12, 0.28), clutter=(0, 2)),
        _CROWD,
        replace(
            _CROWD,
            name="haze",
            severity=0.5,
            airlight=((175.0, 180.0, 185.0), (225.0, 230.0, 235.0)),
        ),
        replace(
            _CROWD,
            name="lowlight",
            severity=0.45,
            airlight=((4.0, 4.0, 10.0), (16.0, 18.0, 34.0)),
        ),
    )
}
"""``clean``: few objects, no shift. The shipped CLIP learned from scenes of this world, and the
benchmark takes place in others of it. ``crowd``: many small, overlapping objects and clutter.
``haze``, ``lowlight``: the same crowd, photometrically shifted."""


def get_world(world: str | World, severity: float | None = None) -> World:
    """Look up a world by name and, if a severity is given, change it.

    Args:
        world: Name of a world, or a ``World``, which is used directly.
        severity: Mean severity in 0..0.95, or None for the world's own.

    Returns:
        The world.

    Raises:
        UserError: If there is no world of that name, or the severity is out of range.
    """
    if isinstance(world, str):
        if world not in WORLDS:
            raise UserError(f"unknown world {world!r}; choose one of {', '.join(WORLDS)}")
        world = WORLDS[world]
    return world if severity is None else replace(world, severity=severity)
