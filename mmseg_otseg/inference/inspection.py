"""A model's predictions and transport plan for one image, for closer inspection."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from mmseg_otseg.imaging import labels_at_size


@dataclass(frozen=True)
class Inspection:
    """A model's values at every position of an image, before any class is chosen.

    Attributes:
        image: RGB values (h, w, 3), uint8, perhaps of a reduced image.
        size: Rows and columns (H, W) of the whole image.
        names: The K class names.
        palette: Their colors, RGB.
        seen: Whether each class had labels in training, (K,), bool.
        seen_bias: The probability that the model subtracts from those of the seen classes.
        values: Class probabilities at the model's size, (K, h', w'), before the bias is subtracted.
        prompts: Display names of the N prompts of a class: their templates, or numbers.
        align_corners: How the class maps are resized.
        plan: Computes the transport plan (K, N, H, W), of total mass 1 per class; or returns None,
            as not every head has one.
        warning: About names that this CLIP does not tell apart; empty if there are none.
    """

    image: np.ndarray
    size: tuple[int, int]
    names: tuple[str, ...]
    palette: Sequence[Sequence[int]]
    seen: np.ndarray
    seen_bias: float
    values: np.ndarray
    prompts: tuple[str, ...]
    align_corners: bool
    plan: Callable[[], np.ndarray | None]
    warning: str = ""

    @cached_property
    def share(self) -> np.ndarray | None:
        """Share of each patch's mass that goes to each prompt, (K, N, H, W); None without a plan.

        With Sinkhorn the shares of a class's prompts add up to 1 in every patch.
        """
        plan = self.plan()
        return None if plan is None else plan * (plan.shape[-2] * plan.shape[-1])

    def biased(self, seen_bias: float | None = None) -> np.ndarray:
        """The class maps less a bias of the seen classes, by default the model's own."""
        bias = self.seen_bias if seen_bias is None else seen_bias
        return self.values - np.float32(bias) * self.seen[:, None, None]

    def labels(
        self,
        seen_bias: float | None = None,
        none_below: float | None = None,
        size: tuple[int, int] | None = None,
    ) -> np.ndarray:
        """The class of each pixel.

        Args:
            seen_bias: Subtracted from the values of the seen classes; None is the model's own.
            none_below: Pixels whose best value is below this get the label K.
            size: Rows and columns; None is the image's size.

        Returns:
            Class indices (H, W), uint8 or uint16.
        """
        values = self.biased(seen_bias)
        return labels_at_size(values, size or self.size, none_below, self.align_corners)

    def values_at(self, row: int, column: int, seen_bias: float | None = None) -> np.ndarray:
        """The value of every class in one pixel of the image, (K,), less the seen-class bias."""
        return self._at(self.biased(seen_bias), row, column)

    def share_at(self, row: int, column: int, label: int) -> np.ndarray | None:
        """The share of one pixel that each prompt of a class takes, (N,), summing to 1; or None."""
        if self.share is None:
            return None
        share = self._at(self.share[label], row, column)
        return share / max(float(share.sum()), np.finfo(np.float32).tiny)

    def _at(self, maps: np.ndarray, row: int, column: int) -> np.ndarray:
        """Maps (C, h, w) over the whole image, where one of its pixels is."""
        rows, columns = maps.shape[1:]
        return maps[:, row * rows // self.size[0], column * columns // self.size[1]]
