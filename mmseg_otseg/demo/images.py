"""The images and class names that come in from the page."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from mmseg_otseg.demo.samples import build_dataset, samples_with_unseen
from mmseg_otseg.errors import UserError
from mmseg_otseg.imaging import class_list, find_images, read_image
from mmseg_otseg.inference import OTSegInferencer

LONGER_SIDE = 2048
MOST_PIXELS = 2**26
MOST_NAMES = 200
SAMPLES = 8


def load_image(path: str | os.PathLike) -> np.ndarray:
    """Read an image, reduced to ``LONGER_SIDE`` pixels if it is larger.

    Returns:
        BGR values (h, w, 3), uint8.

    Raises:
        UserError: If it cannot be read, or has more than ``MOST_PIXELS`` pixels.
    """
    try:
        rgb, _ = read_image(path, MOST_PIXELS)
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise UserError(f"This image cannot be used: {reason}.") from error
    image = Image.fromarray(rgb)
    image.thumbnail((LONGER_SIDE, LONGER_SIDE))
    return np.ascontiguousarray(np.asarray(image)[..., ::-1])


def read_names(text: str) -> list[str] | None:
    """The class names that were typed; None if there are none.

    Raises:
        UserError: If a quote is not closed, or there are more than ``MOST_NAMES``.
    """
    if not text.strip():
        return None
    names = class_list(text)
    if len(names) > MOST_NAMES:
        raise UserError(f"These are {len(names)} class names; give at most {MOST_NAMES}.")
    return names


def write_names(names: Sequence[str]) -> str:
    """The text that :func:`read_names` reads; names with a comma in quotes."""
    return ", ".join(f'"{name}"' if "," in name else name for name in names)


def samples_for(inferencer: OTSegInferencer, files: Sequence[str]) -> list[tuple[str, np.ndarray]]:
    """Images to choose from, by name: those of the files, else some of the config's test data.

    The colors of the test data's classes become the model's.

    Args:
        inferencer: The model.
        files: Images and folders of them.

    Raises:
        UserError: If a given image cannot be read.
    """
    if files:
        found, _ = find_images(list(files))
        paths = [Path(path) for path in found if isinstance(path, str)]
        return [(path.stem, load_image(path)) for path in paths]
    split = inferencer.model.neck.text.split
    try:
        dataset = build_dataset(inferencer.cfg, split)
    except (OSError, KeyError, AttributeError):  # the data are not here, or there are none
        return []
    inferencer.model.dataset_meta = dataset.metainfo
    return [(s.name, s.image) for s in samples_with_unseen(dataset, split, SAMPLES)]
