"""Writes masks as run lengths in COCO's format, which labeling tools import."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np


class CocoFile:
    """An annotation file: each class of each image is one annotation with run lengths (RLE).

    A class has the category id of its value in the masks plus 1, as COCO counts from 1. Annotations
    are written as they come; the file appears under its name when it is closed.

    Args:
        path: The ``.json`` file.
        names: The class names.

    Raises:
        ModuleNotFoundError: If pycocotools is not installed.
    """

    def __init__(self, path: Path, names: Sequence[str]) -> None:
        check_coco()
        self.path, self._names = path, names
        self._images: list[dict[str, Any]] = []
        self._part = path.with_name(f".{path.name}.{os.getpid()}")
        path.parent.mkdir(parents=True, exist_ok=True)
        self._file = self._part.open("w", encoding="utf-8")
        self._file.write('{"annotations": [')
        self._count = 0

    def add(self, file_name: str, mask: np.ndarray) -> None:
        """Write the annotations of an image with class indices (H, W)."""
        from pycocotools import mask as coco

        height, width = mask.shape
        image = dict(id=len(self._images) + 1, file_name=file_name, height=height, width=width)
        self._images.append(image)
        for label in np.unique(mask).tolist():
            if label >= len(self._names):
                continue
            runs = coco.encode(np.asfortranarray(mask == label, dtype=np.uint8))
            annotation = dict(
                id=self._count + 1,
                image_id=image["id"],
                category_id=label + 1,
                segmentation=dict(size=[height, width], counts=runs["counts"].decode()),
                area=int(coco.area(runs)),
                bbox=coco.toBbox(runs).tolist(),
                iscrowd=0,
            )
            self._file.write(("," if self._count else "") + "\n" + json.dumps(annotation))
            self._count += 1

    def close(self) -> None:
        """Write the images and categories, and put the file in its place."""
        categories = [dict(id=i, name=name) for i, name in enumerate(self._names, 1)]
        self._file.write(f'],\n"images": {json.dumps(self._images)},\n')
        self._file.write(f'"categories": {json.dumps(categories)}}}\n')
        self._file.close()
        self._part.replace(self.path)


def check_coco() -> None:
    """Check that pycocotools is there, before the work rather than after it.

    Raises:
        ModuleNotFoundError: If it is not.
    """
    if find_spec("pycocotools") is None:
        raise ModuleNotFoundError(
            'COCO\'s format needs pycocotools: pip install "mmseg_otseg[coco]"'
        )
