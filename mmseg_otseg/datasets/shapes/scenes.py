"""Procedural scenes: colored shapes on a textured ground, drawn from signed distances.

Every image depends only on (subset, index, seed, size, composition), not on library versions or the
CPU. To ensure this, the code uses only uniform numbers and raw bits of PCG64, the exactly rounded
operations of IEEE arithmetic (+ - * / sqrt and comparisons), and no sums whose order is up to a
library.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

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

BACKGROUND = 255
"""Label of all pixels outside objects."""

SUBSETS = {"train": 0, "val": 1, "test": 2, "pretrain": 3}
"""The subsets, with their entries in the random seed: each subset has scenes of its own."""

_MEAN_COLORS = tuple(COLORS.values())
# Area of each shape at radius 1; see `_distance`. The areas are similar, so radii can be compared.
_AREAS = (math.pi, 1.72 * 1.72, 0.75 * math.sqrt(3.0) * 1.45 * 1.45, 8 * 1.1 * 0.38 - 4 * 0.38**2)
_PER_SCENE, _PER_OBJECT, _PER_STROKE = 16, 12, 8  # uniform numbers reserved for each


@dataclass(frozen=True)
class Composition:
    """What is in a scene; the defaults are the benchmark's.

    Args:
        objects: Minimum and maximum number of objects.
        radius: Minimum and maximum object radius, as a fraction of the shorter image side.
        clutter: Minimum and maximum number of gray clutter strokes, labeled as background.
    """

    objects: tuple[int, int] = (1, 3)
    radius: tuple[float, float] = (0.12, 0.28)
    clutter: tuple[int, int] = (0, 2)


@dataclass(frozen=True)
class SceneObject:
    """One object of a scene.

    Args:
        label: Class index, 0..19.
        radius: Radius as a fraction of the shorter image side.
        pixels: Number of visible pixels.
        visible: Visible fraction of the object's area, 0..1. Parts outside the image are not
            visible.
    """

    label: int
    radius: float
    pixels: int
    visible: float


@dataclass(frozen=True)
class Scene:
    """An image with its labels and objects.

    Args:
        image: (H, W, 3) uint8, RGB.
        labels: (H, W) uint8, class indices, ``BACKGROUND`` elsewhere.
        objects: The objects, in painting order (later ones cover earlier ones).
    """

    image: np.ndarray
    labels: np.ndarray
    objects: tuple[SceneObject, ...]


def render_scene(
    subset: str,
    index: int,
    seed: int = 0,
    size: int | tuple[int, int] = 64,
    composition: Composition = Composition(),
) -> Scene:
    """Draw scene ``index`` of a subset.

    Args:
        subset: Name of a subset, a key of ``SUBSETS``.
        index: Number of the scene in the subset, from 0.
        seed: Each seed gives different train, val, test and pretrain scenes.
        size: Image side in pixels, or (height, width).
        composition: Numbers and sizes of what is in it.
    """
    height, width = (size, size) if isinstance(size, int) else size
    address = (seed, SUBSETS[subset], index)
    rng = np.random.Generator(np.random.PCG64(np.random.SeedSequence(address)))
    draws = iter(rng.random(_PER_SCENE).tolist())

    image = _ground(draws, height, width)
    count = _integer(draws, *composition.objects)
    strokes = _integer(draws, *composition.clutter)
    owner = np.zeros((height, width), np.uint8)  # 0 = background, i = i-th object

    # Each clutter stroke is painted below a random object or on top of all.
    after = [int(value * (count + 1)) for value in rng.random(strokes).tolist()]
    objects = []
    for number in range(count + 1):
        for _ in range(after.count(number)):
            _paint_stroke(image, owner, iter(rng.random(_PER_STROKE).tolist()))
        if number < count:
            values = iter(rng.random(_PER_OBJECT).tolist())
            objects.append(_paint_object(image, owner, number + 1, values, composition))

    pixels = np.bincount(owner.ravel(), minlength=count + 1).tolist()
    side = min(height, width)
    lookup = np.full(count + 1, BACKGROUND, np.uint8)
    found = []
    for number, (label, radius) in enumerate(objects, start=1):
        lookup[number] = label
        area = _AREAS[label % len(SHAPES)] * (radius * side) ** 2
        found.append(SceneObject(label, radius, pixels[number], min(1.0, pixels[number] / area)))
    return Scene(_photograph(image, rng), lookup[owner], tuple(found))


def _integer(draws: Iterator[float], low: int, high: int) -> int:
    """A uniform integer in low..high (both included) from the next uniform number."""
    return low + int(next(draws) * (high - low + 1))


def _between(draws: Iterator[float], low: float, high: float) -> float:
    """A uniform number in low..high from the next uniform number."""
    return low + next(draws) * (high - low)


def _direction(x: float, y: float) -> tuple[float, float]:
    """The unit vector along (x, y), without trigonometric functions."""
    norm = math.sqrt(x * x + y * y) or 1.0
    return x / norm, y / norm


def _axes(height: int, width: int, top: int = 0, left: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Pixel-center coordinates y (height, 1) and x (1, width) in float32."""
    y = np.arange(top, top + height, dtype=np.float32) + np.float32(0.5)
    x = np.arange(left, left + width, dtype=np.float32) + np.float32(0.5)
    return y[:, None], x[None, :]


def _ground(draws: Iterator[float], height: int, width: int) -> np.ndarray:
    """A grayish ground with a linear gradient and soft stripes, (H, W, 3) float32 in 0..255."""
    y, x = _axes(height, width)
    y, x = y / np.float32(height), x / np.float32(width)
    slope = _direction(_between(draws, -1, 1), _between(draws, -1, 1))
    light = _between(draws, -40, 40)
    shade = (x * np.float32(slope[0] * light)) + (y * np.float32(slope[1] * light))
    wave = _direction(_between(draws, -1, 1), _between(draws, -1, 1))
    cycles = _between(draws, 2, 6)
    phase = x * np.float32(wave[0] * cycles) + y * np.float32(wave[1] * cycles)
    phase = phase + np.float32(8.0 + next(draws))  # positive, so that truncation is the floor
    stripe = np.abs(phase - phase.astype(np.int32).astype(np.float32) - np.float32(0.5))
    shade = shade + stripe * np.float32(_between(draws, 0, 40))
    level = _between(draws, 70, 180)
    tint = np.array([level + _between(draws, -15, 15) for _ in range(3)], np.float32)
    return shade[..., None] + tint


def _distance(shape: int, x: np.ndarray, y: np.ndarray, radius: float) -> np.ndarray:
    """Signed distance (negative inside; a lower bound outside corners) to a shape at the origin."""
    r = np.float32(radius)
    if SHAPES[shape] == "circle":
        return np.sqrt(x * x + y * y) - r
    ax = np.abs(x)
    if SHAPES[shape] == "triangle":  # circumradius 1.45 r, standing on its base
        slant = ax * np.float32(0.8660254) - y * np.float32(0.5)
        return np.maximum(y, slant) - r * np.float32(0.725)
    ay = np.abs(y)
    if SHAPES[shape] == "square":
        return np.maximum(ax, ay) - r * np.float32(0.86)
    long, short = r * np.float32(1.1), r * np.float32(0.38)
    return np.minimum(np.maximum(ax - long, ay - short), np.maximum(ax - short, ay - long))


def _window(center: float, reach: float, length: int) -> tuple[int, int]:
    """First pixel within ``reach`` of ``center`` along an axis, and last pixel plus one."""
    return max(0, int(center - reach)), min(length, int(center + reach) + 2)


def _paint_object(
    image: np.ndarray,
    owner: np.ndarray,
    number: int,
    draws: Iterator[float],
    composition: Composition,
) -> tuple[int, float]:
    """Paint one object in place and mark its pixels in ``owner``; returns (label, radius)."""
    height, width = owner.shape
    label = int(next(draws) * len(SHAPES_CLASSES))
    relative = _between(draws, *composition.radius)
    radius = relative * min(height, width)
    cx = _between(draws, 0.12, 0.88) * width
    cy = _between(draws, 0.12, 0.88) * height
    cos, sin = (np.float32(v) for v in _direction(1.0, _between(draws, -0.35, 0.35)))
    color = [c + _between(draws, -25, 25) for c in _MEAN_COLORS[label // len(SHAPES)]]
    light = _between(draws, -0.2, 0.2) / radius

    top, bottom = _window(cy, 1.6 * radius + 1, height)
    left, right = _window(cx, 1.6 * radius + 1, width)
    y, x = _axes(bottom - top, right - left, top, left)
    y, x = y - np.float32(cy), x - np.float32(cx)
    distance = _distance(label % len(SHAPES), x * cos + y * sin, y * cos - x * sin, radius)
    shading = np.float32(1.0) + y * np.float32(light)
    paint = shading[..., None] * np.array(color, np.float32)
    _blend(image[top:bottom, left:right], paint, distance)
    owner[top:bottom, left:right][distance <= 0] = number
    return label, relative


def _paint_stroke(image: np.ndarray, owner: np.ndarray, draws: Iterator[float]) -> None:
    """Paint one gray clutter stroke in place; its pixels become background."""
    height, width = owner.shape
    side = min(height, width)
    cx, cy = next(draws) * width, next(draws) * height
    half_length = _between(draws, 0.08, 0.3) * side
    half_width = _between(draws, 0.01, 0.035) * side
    cos, sin = (np.float32(v) for v in _direction(*(_between(draws, -1, 1) for _ in range(2))))
    gray = np.float32(_between(draws, 30, 220))
    top, bottom = _window(cy, half_length + half_width + 1, height)
    left, right = _window(cx, half_length + half_width + 1, width)
    y, x = _axes(bottom - top, right - left, top, left)
    y, x = y - np.float32(cy), x - np.float32(cx)
    along = np.abs(x * cos + y * sin) - np.float32(half_length)
    across = np.abs(y * cos - x * sin) - np.float32(half_width)
    distance = np.maximum(along, across)
    _blend(image[top:bottom, left:right], gray, distance)
    owner[top:bottom, left:right][distance <= 0] = 0


def _blend(image: np.ndarray, paint: np.ndarray | np.float32, distance: np.ndarray) -> None:
    """Paint over ``image`` in place where ``distance`` is negative, antialiased over one pixel."""
    alpha = np.minimum(np.maximum(np.float32(0.5) - distance, np.float32(0)), np.float32(1))
    image += (paint - image) * alpha[..., None]


def _photograph(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Add sensor noise of up to 16 gray values, and round to uint8."""
    # Triangular noise, the difference of two uniform bytes: cheap, and exact in float32.
    raw = rng.bit_generator.random_raw((2 * image.size + 7) // 8).astype("<u8").view(np.uint8)
    first, second = raw[: image.size], raw[image.size : 2 * image.size]
    noise = (first.astype(np.int16) - second).reshape(image.shape)
    image = image + noise * np.float32(16.0 / 255.0)
    return np.rint(np.minimum(np.maximum(image, np.float32(0)), np.float32(255))).astype(np.uint8)
