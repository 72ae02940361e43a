"""Pixel-adaptive refinement of class maps (PAMR): edges of the maps move to edges of the image."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

CLASSES_AT_ONCE = 4  # refined together: few enough that their maps stay in a CPU's cache


def refine(
    maps: Tensor, image: Tensor, steps: int = 10, dilations: Sequence[int] = (8, 16)
) -> Tensor:
    """Replace each pixel's values, step by step, by a mean over neighbors of similar color.

    A pixel has 8 neighbors for each dilation, so a value travels at most ``steps`` times the
    largest dilation. These are distances in pixels: refine a large photograph at the size at which
    the model sees it, and enlarge the refined maps.

    Args:
        maps: Class maps in any unit, shape (B, K, h, w). If their size differs from the image's,
            they are resized bilinearly first.
        image: The images, shape (B, C, H, W), floating. Each channel may have its own unit, since
            colors are compared relative to their spread among the neighbors.
        steps: How often the maps are replaced.
        dilations: Distances of the neighbors in pixels.

    Returns:
        Refined maps, shape (B, K, H, W), in the type of ``maps``.

    Source:
        Araslanov and Roth, Single-Stage Semantic Segmentation from Image Labels, CVPR 2020
        (arXiv 2005.08104), with the settings of NACLIP (arXiv 2404.08181).
    """
    weights = neighbor_weights(image.float(), dilations)
    refined = maps.new_empty(*maps.shape[:2], *image.shape[2:])
    for start in range(0, maps.shape[1], CLASSES_AT_ONCE):
        classes = slice(start, start + CLASSES_AT_ONCE)
        values = maps[:, classes].float()
        if values.shape[2:] != image.shape[2:]:
            values = F.interpolate(values, image.shape[2:], mode="bilinear", align_corners=False)
        for _ in range(steps):
            first, *others = zip(weights.split(1, dim=1), neighbors(values, dilations))
            values = first[0] * first[1]
            for weight, neighbor in others:
                values = values.addcmul_(weight, neighbor)
        refined[:, classes] = values
    return refined


def neighbor_weights(image: Tensor, dilations: Sequence[int]) -> Tensor:
    """How much a pixel takes from each neighbor.

    With x the pixel, x_n its neighbors and s the standard deviation of the 3 x 3 windows of all
    dilations together (unbiased), the weights are the softmax over n of the mean over the channels
    of ``-|x - x_n| / (1e-8 + 0.1 s)``.

    Args:
        image: Shape (B, C, H, W), floating.
        dilations: D distances of the neighbors in pixels.

    Returns:
        Weights, shape (B, 8 D, H, W), of sum 1 over the neighbors.
    """
    around = neighbors(image, dilations)
    # Sums of differences from the pixel itself, which is in the windows D times, with 0.
    total, squares = torch.zeros_like(image), torch.zeros_like(image)
    for neighbor in around:
        difference = neighbor - image
        total += difference
        squares.addcmul_(difference, difference)
    count = len(around) + len(dilations)
    variance = (squares - total.square() / count).clamp_min(0) / (count - 1)
    scale = -1 / (1e-8 + 0.1 * variance.sqrt())
    logits = [(neighbor - image).abs_().mul_(scale).mean(1) for neighbor in around]
    return torch.stack(logits, dim=1).softmax(dim=1)


def neighbors(values: Tensor, dilations: Sequence[int]) -> list[Tensor]:
    """The values of each pixel's neighbors; those outside have the values of the border.

    Args:
        values: Shape (B, C, H, W).
        dilations: D distances in pixels.

    Returns:
        8 D views of one padded copy, shape (B, C, H, W) each, by dilation, then row, then column.
    """
    height, width = values.shape[2:]
    reach = max(dilations)
    padded = F.pad(values, (reach,) * 4, mode="replicate")
    return [
        padded[..., reach + y : reach + y + height, reach + x : reach + x + width]
        for dilation in dilations
        for y in (-dilation, 0, dilation)
        for x in (-dilation, 0, dilation)
        if y or x
    ]
