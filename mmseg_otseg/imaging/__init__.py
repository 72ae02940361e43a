"""Reads images and writes masks and overlays, with NumPy and Pillow only."""

from .classes import SPLIT_NAMES, class_list, palette_for
from .heat import heat
from .labels import NONE_NAME, labels_at_size
from .outputs import OutputFolder
from .overlays import paint
from .reading import ImageError, check_image_file, find_images, read_image
from .resizing import resize

__all__ = [
    "NONE_NAME",
    "SPLIT_NAMES",
    "ImageError",
    "OutputFolder",
    "check_image_file",
    "class_list",
    "find_images",
    "heat",
    "labels_at_size",
    "paint",
    "palette_for",
    "read_image",
    "resize",
]
