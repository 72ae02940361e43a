"""Writes the masks and overlays of many images, each under a different name, and their key."""

from __future__ import annotations

import csv
import json
import logging
import os
import shutil
from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from mmseg_otseg.errors import UserError
from mmseg_otseg.files import write_atomically

from .labels import NONE_COLOR, NONE_NAME
from .reading import read_image

MASKS, OVERLAYS = "pred", "vis"
KEY, SHARES, COCO, NAMES = "classes.json", "summary.csv", "annotations.json", "classes.txt"
LAYOUTS = ("masks", "own_data")
FORMATS = {".png": "PNG", ".tif": "TIFF"}
VALIDATED = 5  # of this many images, the second is for validation


class OutputFolder:
    """A folder with the masks of many images, and with what explains them.

    - ``pred/NAME.png``: class indices, as a palette image with the colors of the overlays; more
      than 256 labels as 16-bit gray.
    - ``vis/NAME.jpg``: overlays.
    - ``classes.json``: index, name and color of each class, and the settings.
    - ``summary.csv``: the share of each class in each image. Images of earlier calls keep their
      rows if the classes are the same.
    - ``annotations.json``: the masks in COCO's format, if requested.

    NAME is the image's path relative to the common folder of all images, without its suffix unless
    two names would then be equal. An array gets the next number that no mask in the folder has yet.
    Files are always written completely or not at all, but for the last line of the summary.

    The layout ``own_data`` is that of data to train with (see ``configs/own_data``): a copy of each
    image in ``images/train`` or, every fifth, ``images/val``; its mask in ``labels``, with 255 for
    "none of these", which training ignores; and the names in ``classes.txt``.

    Args:
        folder: Output folder; it is created when the first file is written.
        images: All images whose results will be written, as paths or arrays.
        names: The class names by index.
        palette: Their colors, RGB in 0..255.
        settings: What else to note in ``classes.json``.
        layout: One of ``LAYOUTS``.
        coco: Whether to write ``annotations.json``.

    Raises:
        UserError: If data to train with would be written over labels that are there.
    """

    def __init__(
        self,
        folder: str | os.PathLike,
        images: Sequence[str | np.ndarray],
        names: Sequence[str] = (),
        palette: Sequence[Sequence[int]] = (),
        settings: Mapping[str, Any] | None = None,
        layout: str = "masks",
        coco: bool = False,
    ) -> None:
        self.folder, self.names, self.palette = Path(folder), tuple(names), palette
        self.settings, self.own_data, self.coco = settings or {}, layout == "own_data", coco
        paths = [image for image in images if not isinstance(image, np.ndarray)]
        self._names = dict(zip(paths, output_names(paths)))
        masks = self.folder / ("labels" if self.own_data else MASKS)
        found = masks.rglob("*.png")
        earlier = {path.relative_to(masks).with_suffix("").as_posix() for path in found}
        if earlier and self.own_data:
            raise UserError(f"{masks} holds labels, perhaps corrected ones: choose another folder")
        if earlier := earlier - set(self._names.values()):
            message = f"{masks} also keeps {len(earlier)} masks of earlier calls"
            logging.getLogger("mmseg_otseg").info(message)
        self._numbers, self._saved = count(), count()
        self._summary: Any = None
        self._coco: dict[str, list[dict[str, Any]]] = {"images": [], "annotations": []}

    def __enter__(self) -> OutputFolder:
        return self

    def __exit__(self, *_: Any) -> None:
        if self._summary is not None:
            self._summary.close()
        if self.coco and self._summary is not None:
            categories = [dict(id=index, name=name) for index, name in enumerate(self.names, 1)]
            with write_atomically(self.folder / COCO, fsync=False) as part:
                part.write_text(json.dumps(dict(self._coco, categories=categories)), "utf-8")

    def save(
        self, image: str | np.ndarray, mask: np.ndarray, overlay: np.ndarray | None = None
    ) -> Path:
        """Write all that is to be written of one image.

        Args:
            image: The image, as it was given to the folder.
            mask: Class indices (H, W), uint8 or uint16; K is "none of these".
            overlay: RGB values (h, w, 3), uint8.

        Returns:
            The path of the mask.
        """
        if self._summary is None:
            self._start()
        subset = "val" if next(self._saved) % VALIDATED == 1 else "train"
        masks = self.folder / (f"labels/{subset}" if self.own_data else MASKS)
        name, labels = self._name(image, masks), mask
        file = masks / f"{name}.png"
        if self.own_data:
            self._save_image(image, self.folder / "images" / subset / name)
            labels = np.where(mask >= len(self.names), np.iinfo(mask.dtype).max, mask)
        save_image(with_palette(labels, self.palette), file)
        if overlay is not None:
            save_overlay(overlay, self.folder / OVERLAYS / f"{name}.jpg")
        counts = np.bincount(mask.ravel(), minlength=len(self.names) + 1) / mask.size
        self._write_row([name, *(f"{part:.6f}" for part in counts)])
        if self.coco:
            suffix = ".png" if isinstance(image, np.ndarray) else Path(image).suffix
            self._annotate(name.removesuffix(suffix) + suffix, mask)
        return file

    def _start(self) -> None:
        """Write the key, and open the files that grow with each image."""
        self.folder.mkdir(parents=True, exist_ok=True)
        classes = [
            dict(index=index, name=name, color=list(map(int, color)))
            for index, (name, color) in enumerate(zip(self.names, self.palette))
        ]
        key = dict(self.settings, classes=classes)
        with write_atomically(self.folder / KEY, fsync=False) as part:
            part.write_text(json.dumps(key, indent=2, ensure_ascii=False) + "\n", "utf-8")
        if self.own_data:
            lines = [f'"{name}"' if "," in name else name for name in self.names]
            with write_atomically(self.folder / NAMES, fsync=False) as part:
                part.write_text("\n".join(lines) + "\n", "utf-8")
        file, header, rows = self.folder / SHARES, ["image", *self.names, NONE_NAME], []
        if file.is_file():
            with file.open(newline="", encoding="utf-8") as earlier:
                old = list(csv.reader(earlier))
            now = set(self._names.values())
            rows = [row for row in old[1:] if row[0] not in now] if old[:1] == [header] else []
        self._summary = file.open("w", newline="", encoding="utf-8")
        for row in (header, *rows):
            self._write_row(row)

    def _annotate(self, file_name: str, mask: np.ndarray) -> None:
        """Add the run lengths (RLE) of each class in an image; COCO counts classes from 1."""
        from pycocotools import mask as coco

        (height, width), images, annotations = mask.shape, *self._coco.values()
        images.append(dict(id=len(images) + 1, file_name=file_name, height=height, width=width))
        for label in np.unique(mask[mask < len(self.names)]).tolist():
            runs = coco.encode(np.asfortranarray(mask == label, dtype=np.uint8))
            annotation = dict(
                id=len(annotations) + 1,
                image_id=len(images),
                category_id=label + 1,
                segmentation=dict(size=[height, width], counts=runs["counts"].decode()),
                area=int(coco.area(runs)),
                bbox=coco.toBbox(runs).tolist(),
                iscrowd=0,
            )
            annotations.append(annotation)

    def _write_row(self, row: Sequence[str]) -> None:
        csv.writer(self._summary).writerow(row)
        self._summary.flush()

    def _name(self, image: str | np.ndarray, masks: Path) -> str:
        """The name of an image's files; an array gets a new one in every call."""
        if not isinstance(image, np.ndarray):
            return self._names[image]
        taken = set(self._names.values())
        names = (f"{number:08d}" for number in self._numbers)
        return next(n for n in names if n not in taken and not (masks / f"{n}.png").exists())

    def _save_image(self, image: str | np.ndarray, file: Path) -> None:
        """A copy of an image, in its own format; an array as PNG."""
        if isinstance(image, np.ndarray):
            save_image(Image.fromarray(read_image(image)[0]), file.with_name(f"{file.name}.png"))
            return
        suffix = Path(image).suffix
        with write_atomically(
            file.with_name(file.name.removesuffix(suffix) + suffix), fsync=False
        ) as part:
            shutil.copyfile(image, part)


def save_overlay(overlay: np.ndarray, path: Path) -> Path:
    """Write RGB values (h, w, 3), uint8, as a JPEG; create missing folders."""
    return save_image(Image.fromarray(overlay), path, quality=90)


def output_names(paths: Sequence[str]) -> list[str]:
    """A name for each path; different files have different names.

    Returns:
        The paths relative to their common folder, without the suffix unless two names would then be
        equal.
    """
    full = [os.path.abspath(path) for path in paths]
    if not full:
        return []
    base = os.path.commonpath([os.path.dirname(path) for path in full])
    long = {path: os.path.relpath(path, base) for path in full}
    names = {path: os.path.splitext(name)[0] for path, name in long.items()}
    while True:
        times = Counter(names.values())
        again = [path for path in names if times[names[path]] > 1 and names[path] != long[path]]
        if not again:
            return [names[path] for path in full]
        names.update((path, long[path]) for path in again)


def with_palette(labels: np.ndarray, palette: Sequence[Sequence[int]]) -> Image.Image:
    """Labels (H, W) as an image; those of 8 bits get a color for each value, which stays."""
    image = Image.fromarray(labels)
    if labels.dtype == np.uint8 and len(palette):
        colors = np.full((256, 3), NONE_COLOR, np.uint8)
        colors[: len(palette)] = palette[:256]
        image.putpalette(colors.tobytes())
    return image


def save_image(image: Image.Image, path: Path, **options: int) -> Path:
    """Write a PNG or JPEG, as the suffix says, completely or not at all; create missing folders.

    Raises:
        OSError: Naming the file, if it cannot be written.
    """
    with write_atomically(path, fsync=False) as part:
        image.save(part, format=FORMATS.get(path.suffix, "JPEG"), **options)
    return path
