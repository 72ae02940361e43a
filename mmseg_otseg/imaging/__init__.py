"""Reads images and writes masks and overlays, with NumPy and Pillow only."""

from .classes import class_names, palette_for
from .heat import heat
from .labels import NONE_NAME, labels_at_size
from .outputs import OutputFolder
from .overlays import paint
from .reading import ImageError, check_image_file, find_images, read_image
from .resizing import resize

__all__ = [
    "NONE_NAME",
    "ImageError",
    "OutputFolder",
    "check_image_file",
    "class_names",
    "find_images",
    "heat",
    "labels_at_size",
    "paint",
    "palette_for",
    "read_image",
    "resize",
]
