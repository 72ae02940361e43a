"""Reads images and writes masks and overlays, with NumPy and Pillow only."""

from .classes import SPLIT_NAMES, class_list, names_of
from .colors import palette_for
from .labels import NONE_COLOR, NONE_NAME, labels_at_size
from .outputs import OutputFolder
from .overlays import heat, paint
from .reading import SUFFIXES, ImageError, check_image_file, find_images, read_image
from .resizing import resize, window_slices

__all__ = [
    "NONE_COLOR",
    "NONE_NAME",
    "SPLIT_NAMES",
    "SUFFIXES",
    "ImageError",
    "OutputFolder",
    "check_image_file",
    "class_list",
    "find_images",
    "heat",
    "labels_at_size",
    "names_of",
    "paint",
    "palette_for",
    "read_image",
    "resize",
    "window_slices",
]
