"""Paints masks and heat maps over images."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw, ImageFont

# Evenly spaced RGB colors of a heat map, from the lowest to the highest value.
HEAT = np.array([(20, 12, 60), (140, 30, 110), (240, 110, 50), (255, 240, 120)], np.float32)
MIN_NAMED = 0.001  # part of the image from which on a class is named in it
MAX_COVERED = 0.15  # part of a class that a name on it may cover
DIMMED, COVER = 0.45, 0.85  # brightness of the image below a heat map, opacity of its top


def paint(
    image: np.ndarray,
    mask: np.ndarray,
    names: Sequence[str],
    palette: Sequence[Sequence[int]],
    opacity: float = 0.6,
) -> np.ndarray:
    """Paint each class in its color and write its name on it.

    Args:
        image: RGB values (h, w, 3), uint8.
        mask: Class indices of the same image, at any size (H, W), uint8 or uint16. Pixels with
            values of K or more stay unpainted.
        names: The K class names.
        palette: Their colors, K lists of RGB values in 0..255.
        opacity: Opacity of the colors, 0..1.

    Returns:
        RGB values (h, w, 3), uint8.
    """
    if mask.shape != image.shape[:2]:  # the nearest pixel of the mask
        rows, columns = (
            ((np.arange(new) + 0.5) * old).astype(np.int64) // new
            for old, new in zip(mask.shape, image.shape)
        )
        mask = mask[rows[:, None], columns]
    colors = np.zeros((np.iinfo(mask.dtype).max + 1, 3), np.uint8)
    colors[: len(palette)] = palette
    covered = Image.blend(Image.fromarray(image), Image.fromarray(colors[mask]), opacity)
    unknown = mask >= len(names)
    if unknown.any():
        covered.paste(Image.fromarray(image), mask=Image.fromarray(unknown))
    _write_names(covered, mask, names, colors)
    return np.asarray(covered)


def _write_names(
    canvas: Image.Image, mask: np.ndarray, names: Sequence[str], colors: np.ndarray
) -> None:
    """Write each name on its class, or beside it where it would cover much of any class."""
    draw = ImageDraw.Draw(canvas)
    font = ImageFont.load_default(max(9.0, min(canvas.size) / 32))
    # A coarse mask is good enough and much faster for a large image.
    step = max(1, max(mask.shape) // 256)
    coarse = mask[step // 2 :: step, step // 2 :: step]
    labels, areas = np.unique(coarse[coarse < len(names)], return_counts=True)
    large = areas >= MIN_NAMED * coarse.size
    labels, areas = labels[large], areas[large]
    taken = np.zeros(coarse.shape, bool)
    for label in labels.tolist():
        places = np.argwhere(coarse == label)
        center = places[np.square(places - places.mean(0)).sum(1).argmin()]
        top, left, bottom, right = (
            int(place * step) for place in (*places.min(0), *(places.max(0) + 1))
        )
        y, x = (center * step + step // 2).tolist()
        box = draw.textbbox((0, 0), names[label], font=font, anchor="mm")
        width, height = box[2] - box[0] + 4, box[3] - box[1] + 4
        best, lowest = (x, y), np.inf
        for at_x, at_y in (
            (x, y),
            (x, top - height / 2 - 2),
            (x, bottom + height / 2 + 2),
            (right + width / 2 + 2, y),
            (left - width / 2 - 2, y),
        ):
            # Shift the plate into the image if it fits.
            at_x = max(min(at_x, canvas.width - width / 2), width / 2)
            at_y = max(min(at_y, canvas.height - height / 2), height / 2)
            plate = (
                slice(int((at_y - height / 2) / step), int((at_y + height / 2) / step) + 1),
                slice(int((at_x - width / 2) / step), int((at_x + width / 2) / step) + 1),
            )
            found = [np.count_nonzero(coarse[plate] == other) for other in labels]
            cost = max(np.divide(found, areas).max(), 2.0 * taken[plate].any())
            if cost < lowest:
                best, lowest, used = (at_x, at_y), cost, plate
            if cost < MAX_COVERED:
                break
        taken[used] = True
        (x, y), color = best, tuple(colors[label].tolist())
        box = draw.textbbox((x, y), names[label], font=font, anchor="mm")
        dark = np.dot(colors[label], (0.299, 0.587, 0.114)) < 128
        draw.rectangle((box[0] - 2, box[1] - 2, box[2] + 2, box[3] + 2), fill=color)
        draw.text((x, y), names[label], font=font, anchor="mm", fill="white" if dark else "black")


def heat(image: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Draw a heat map over the image, which is turned gray and darkened.

    Args:
        image: RGB values (h, w, 3), uint8.
        values: Map of the image, shape (H, W), of any size and range. It is scaled so that its
            smallest and largest values get the first and last color, and resized smoothly.

    Returns:
        RGB values (h, w, 3), uint8.
    """
    gray = np.asarray(Image.fromarray(image).convert("L"), np.float32)[..., None] * DIMMED
    low, high = float(values.min()), float(values.max())
    part = (values - low) / (high - low) if high > low else np.zeros_like(values)
    smooth = smoothly_resized(part, image.shape[:2]).clip(0, 1)
    stops = np.linspace(0, 1, len(HEAT))
    colors = np.stack([np.interp(smooth, stops, channel) for channel in HEAT.T], axis=-1)
    cover = COVER * smooth[..., None]
    return (gray * (1 - cover) + colors * cover).round().astype(np.uint8)


def smoothly_resized(values: np.ndarray, size: Sequence[int]) -> np.ndarray:
    """An image or a map (h, w) resized smoothly to some rows and columns, for the eye."""
    picture = Image.fromarray(values if values.ndim == 3 else values.astype(np.float32))
    return np.asarray(picture.resize((size[1], size[0]), Image.Resampling.BICUBIC))


def with_side(image: np.ndarray, side: int) -> np.ndarray:
    """An RGB image (h, w, 3), uint8, brought to ``side`` pixels on its longer side."""
    factor = side / max(image.shape[:2])
    return smoothly_resized(image, [max(1, round(length * factor)) for length in image.shape[:2]])
