"""What the page and the figures show: the included model, and samples of data or of files."""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from mmengine.config import Config
from mmengine.logging import print_log
from mmseg.registry import DATASETS
from PIL import Image

from mmseg_otseg.engine import resolve
from mmseg_otseg.errors import UserError
from mmseg_otseg.imaging import find_images, read_image
from mmseg_otseg.imaging.reading import ImageError
from mmseg_otseg.inference import OTSegInferencer
from mmseg_otseg.inference.loading import installed_config
from mmseg_otseg.structures import ClassSplit

CONFIG = Path("shapes", "checkpoint", "otseg_plus.py")
WEIGHTS = CONFIG.with_suffix(".safetensors")
NONE_BELOW = 0.15
"""Probability below which a pixel is most likely ground, which is no class of these scenes."""
PHOTO_NAMES = (
    *("person", "car", "road | street", "building | house", "tree", "grass", "sky", "water"),
    *("dog", "cat", "chair", "table", "wall", "floor"),
)
LONGER_SIDE = 2048
MAX_SEARCHED = 300
NUM_SAMPLES = 8


def included_model() -> tuple[Path, Path]:
    """Config and weights of an OTSeg+ for procedural scenes of colored shapes.

    Raises:
        FileNotFoundError: If the configs or the weights did not come with the package.
    """
    return installed_config(CONFIG), installed_config(WEIGHTS)


class Sample(NamedTuple):
    """An image and its labels.

    Attributes:
        image: BGR values (h, w, 3), uint8, at the size that the test pipeline gives it.
        label: Class indices, (H, W), 255 = ignored; None if they are not known.
    """

    image: np.ndarray
    label: np.ndarray | None


def build_dataset(cfg: Config) -> Any:
    """The test dataset of a config."""
    return DATASETS.build(resolve(cfg).test_dataloader.dataset)


def take_sample(dataset: Any, index: int) -> Sample:
    """A sample of a dataset."""
    packed = dataset[index]
    image = packed["inputs"].permute(1, 2, 0).numpy().clip(0, 255).astype(np.uint8)
    data = packed["data_samples"]
    label = data.gt_sem_seg.data[0].numpy() if "gt_sem_seg" in data else None
    return Sample(np.ascontiguousarray(image), label)


def samples_with_unseen(dataset: Any, split: ClassSplit, number: int) -> list[Sample]:
    """The first samples of a dataset in whose labels an unseen class occurs.

    If fewer than ``number`` of the first ``MAX_SEARCHED`` samples have one, the first samples
    without an unseen class fill the list.
    """
    found: list[Sample] = []
    others: list[Sample] = []
    for index in range(min(len(dataset), MAX_SEARCHED)):
        sample = take_sample(dataset, index)
        if sample.label is not None and np.isin(sample.label, split.unseen).any():
            found.append(sample)
        elif len(others) < number:
            others.append(sample)
        if len(found) == number:
            break
    return [*found, *others][:number]


def samples_for(inferencer: OTSegInferencer, files: Sequence[str]) -> list[np.ndarray]:
    """Images to choose from: those of the files, else some of the config's test data.

    The colors of the test data's classes become the model's.

    Args:
        inferencer: The model.
        files: Images and folders of them; one that cannot be read is left out and logged.

    Returns:
        BGR values (h, w, 3) of each.
    """
    if files:
        images = []
        for path in map(str, find_images(list(files))[0]):
            try:
                images.append(load_image(path))
            except UserError as error:  # one image must not keep the page from opening
                print_log(f"left out: {error}", "current", logging.WARNING)
        return images
    split = inferencer.model.neck.text.split
    try:
        dataset = build_dataset(inferencer.cfg)
    except (OSError, KeyError, AttributeError):  # the data are not here, or there are none
        return []
    inferencer.model.dataset_meta = dataset.metainfo
    return [sample.image for sample in samples_with_unseen(dataset, split, NUM_SAMPLES)]


def load_image(path: str | os.PathLike) -> np.ndarray:
    """Read an image, reduced to ``LONGER_SIDE`` pixels if it is larger.

    Returns:
        BGR values (h, w, 3), uint8.

    Raises:
        UserError: If it cannot be read.
    """
    try:
        image = Image.fromarray(read_image(path)[0])
    except ImageError as error:  # which lacks the subject of the sentence
        raise UserError(f"{Path(path).name} cannot be used: {error}") from error
    image.thumbnail((LONGER_SIDE, LONGER_SIDE))
    return np.ascontiguousarray(np.asarray(image)[..., ::-1])
