"""Paints masks and heat maps over images."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw, ImageFont

# Evenly spaced RGB colors of a heat map, from the lowest to the highest value.
HEAT = np.array([(20, 12, 60), (140, 30, 110), (240, 110, 50), (255, 240, 120)], np.float32)
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
    """Write each name at the pixel of its class nearest to the center of the class."""
    draw = ImageDraw.Draw(canvas)
    height = min(canvas.size)
    font = ImageFont.load_default(max(9.0, height / 32))
    # A coarse mask is good enough and much faster for a large image.
    step = max(1, max(mask.shape) // 256)
    coarse = mask[step // 2 :: step, step // 2 :: step]
    for label in np.unique(coarse):
        if label >= len(names):
            continue
        places = np.argwhere(coarse == label)
        nearest = np.square(places - places.mean(0)).sum(1).argmin()
        y, x = (places[nearest] * step + step // 2).tolist()
        left, top, right, bottom = draw.textbbox((x, y), names[label], font=font, anchor="mm")
        # Shift the name into the image if it fits.
        x += max(0, 2 - left) - max(0, right + 2 - canvas.width)
        y += max(0, 2 - top) - max(0, bottom + 2 - canvas.height)
        box = draw.textbbox((x, y), names[label], font=font, anchor="mm")
        color = tuple(colors[label].tolist())
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
    canvas = Image.fromarray(part.astype(np.float32)).resize(
        (image.shape[1], image.shape[0]), Image.Resampling.BICUBIC
    )
    smooth = np.asarray(canvas).clip(0, 1)
    stops = np.linspace(0, 1, len(HEAT))
    colors = np.stack([np.interp(smooth, stops, channel) for channel in HEAT.T], axis=-1)
    cover = COVER * smooth[..., None]
    return (gray * (1 - cover) + colors * cover).round().astype(np.uint8)
