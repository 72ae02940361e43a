"""Writes the masks and overlays of many images, each under a different name."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Sequence
from itertools import count
from pathlib import Path
from threading import get_ident

import numpy as np
from PIL import Image

MASKS, OVERLAYS = "pred", "vis"


class OutputFolder:
    """A folder with masks ``pred/NAME.png`` and overlays ``vis/NAME.jpg``.

    NAME is the image's path relative to the common folder of all images, without its suffix unless
    two names would then be equal. An array gets the next number that no mask in the folder has yet.
    Files are always written completely or not at all.

    Args:
        folder: Output folder; it is created when the first file is written.
        images: All images whose results will be written, as paths or arrays.
    """

    def __init__(self, folder: str | os.PathLike, images: Sequence[str | np.ndarray]) -> None:
        self.folder = Path(folder)
        paths = [image for image in images if not isinstance(image, np.ndarray)]
        self._names = dict(zip(paths, output_names(paths)))
        self._numbers = count()

    def name(self, image: str | np.ndarray) -> str:
        """The name of an image's mask and overlay; an array gets a new one in every call."""
        if not isinstance(image, np.ndarray):
            return self._names[image]
        taken = set(self._names.values())
        for number in self._numbers:
            name = f"{number:08d}"
            mask = self.folder / MASKS / f"{name}.png"
            mask.parent.mkdir(parents=True, exist_ok=True)
            if name in taken:
                continue
            try:
                mask.open("xb").close()  # reserve the name, also against other processes
            except FileExistsError:
                continue
            return name
        raise AssertionError("unreachable")

    def save_mask(self, name: str, mask: np.ndarray) -> Path:
        """Write class indices (H, W), uint8 or uint16, as a gray PNG."""
        return save_image(mask, self.folder / MASKS / f"{name}.png")

    def save_overlay(self, name: str, overlay: np.ndarray) -> Path:
        """Write an overlay (h, w, 3), RGB, uint8."""
        return save_overlay(overlay, self.folder / OVERLAYS / f"{name}.jpg")


def save_overlay(overlay: np.ndarray, path: Path) -> Path:
    """Write RGB values (h, w, 3), uint8, as a JPEG; create missing folders."""
    return save_image(overlay, path, quality=90)


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


def save_image(values: np.ndarray, path: Path, **options: int) -> Path:
    """Write values as a PNG or JPEG, completely or not at all; create missing folders.

    Args:
        values: (H, W) or (H, W, 3), uint8; or (H, W), uint16.
        path: The file; its suffix chooses the format.
        options: Of Pillow's format.

    Raises:
        OSError: Naming the file, if it cannot be written.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.{os.getpid()}.{get_ident()}")
    try:
        kind = "PNG" if path.suffix == ".png" else "JPEG"
        Image.fromarray(values).save(part, format=kind, **options)
        os.replace(part, path)
    except OSError as error:
        raise OSError(error.errno, error.strerror or str(error), str(path)) from error
    finally:
        part.unlink(missing_ok=True)
    return path
