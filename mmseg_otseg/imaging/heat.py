"""Heat maps drawn over images."""

from __future__ import annotations

import numpy as np
from PIL import Image

DIMMED, COVER = 0.45, 0.85
# Evenly spaced RGB colors from the lowest to the highest value.
COLORS = np.array([(20, 12, 60), (140, 30, 110), (240, 110, 50), (255, 240, 120)], np.float32)


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
    stops = np.linspace(0, 1, len(COLORS))
    colors = np.stack([np.interp(smooth, stops, channel) for channel in COLORS.T], axis=-1)
    cover = COVER * smooth[..., None]
    return (gray * (1 - cover) + colors * cover).round().astype(np.uint8)
