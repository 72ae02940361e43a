"""Samples of a config's dataset, for figures and the web demo."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from mmengine.config import Config
from mmseg.registry import DATASETS

from mmseg_otseg.engine import resolve
from mmseg_otseg.errors import UserError
from mmseg_otseg.structures import ClassSplit

MOST_LOOKED_AT = 300


class Sample(NamedTuple):
    """An image and its labels.

    Attributes:
        name: Its name, without folder and suffix.
        image: BGR values (h, w, 3), uint8, at the size that the test pipeline gives it.
        label: Class indices, (H, W), 255 = ignored; None if they are not known.
    """

    name: str
    image: np.ndarray
    label: np.ndarray | None


def build_dataset(cfg: Config, split: ClassSplit, subset: str = "test") -> Any:
    """The ``"val"`` or ``"test"`` dataset of a config, whose classes are those of ``split``."""
    return DATASETS.build(resolve(cfg)[f"{subset}_dataloader"].dataset)


def take_samples(dataset: Any, indices: Sequence[int]) -> list[Sample]:
    """Samples of a dataset by index.

    Raises:
        UserError: If an index is out of range.
    """
    wrong = [index for index in indices if not 0 <= index < len(dataset)]
    if wrong:
        raise UserError(f"the data has the samples 0 to {len(dataset) - 1}, not {wrong}")
    return [_sample(dataset[index]) for index in indices]


def samples_with_unseen(dataset: Any, split: ClassSplit, number: int) -> list[Sample]:
    """The first samples of a dataset in whose labels an unseen class occurs.

    If fewer than ``number`` of the first ``MOST_LOOKED_AT`` samples have one, the first samples
    without an unseen class fill the list.
    """
    found: list[Sample] = []
    others: list[Sample] = []
    for index in range(min(len(dataset), MOST_LOOKED_AT)):
        sample = _sample(dataset[index])
        if sample.label is not None and np.isin(sample.label, split.unseen).any():
            found.append(sample)
        elif len(others) < number:
            others.append(sample)
        if len(found) == number:
            break
    return [*found, *others][:number]


def _sample(packed: dict[str, Any]) -> Sample:
    image = packed["inputs"].permute(1, 2, 0).numpy()
    data = packed["data_samples"]
    label = data.gt_sem_seg.data[0].numpy() if "gt_sem_seg" in data else None
    name = Path(data.metainfo.get("img_path") or "").stem
    return Sample(name, np.ascontiguousarray(image.clip(0, 255).astype(np.uint8)), label)
