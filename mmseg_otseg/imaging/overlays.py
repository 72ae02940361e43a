"""Paints masks over images."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw, ImageFont


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
    mask = _nearest(mask, image.shape[:2])
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


def _nearest(mask: np.ndarray, size: tuple[int, ...]) -> np.ndarray:
    if mask.shape == size:
        return mask
    rows, columns = (
        (np.arange(new) + 0.5) * old // new for old, new in zip(mask.shape, size, strict=True)
    )
    return mask[rows.astype(np.int64)[:, None], columns.astype(np.int64)]
