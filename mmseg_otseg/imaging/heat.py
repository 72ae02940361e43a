"""Small maps of numbers, shown over their image."""

from __future__ import annotations

import numpy as np
from PIL import Image

DIMMED, COVER = 0.45, 0.85
# From nothing to the most: colors, RGB, at equal distances.
COLORS = np.array([(20, 12, 60), (140, 30, 110), (240, 110, 50), (255, 240, 120)], np.float32)


def heat(image: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Lay a map over an image that is gray and dimmed, so that its largest places glow.

    Args:
        image: RGB values (h, w, 3), uint8.
        values: A map of the image, (H, W), any size and range; it is stretched to its own smallest
            and largest value, and upsampled smoothly.

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
    stops = np.linspace(0, 1, len(COLORS))
    colors = np.stack([np.interp(smooth, stops, channel) for channel in COLORS.T], axis=-1)
    cover = COVER * smooth[..., None]
    return (gray * (1 - cover) + colors * cover).round().astype(np.uint8)
