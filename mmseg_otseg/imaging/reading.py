"""Finds images and reads them with a limit on their size."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

import numpy as np
from PIL import Image, ImageOps

from mmseg_otseg.errors import UserError

Source = str | os.PathLike | np.ndarray

SUFFIXES = (
    *(".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff", ".webp", ".gif"),
    *(".ppm", ".pgm", ".mpo", ".jp2"),
)
# Formats that Pillow decodes itself. For others, such as EPS, it starts another program.
FORMATS = ("JPEG", "PNG", "BMP", "TIFF", "WEBP", "GIF", "PPM", "JPEG2000")
MAX_PIXELS = 2**29  # 2 GiB at Pillow's four bytes per pixel
MAX_PIXELS_KEPT = 2**26  # larger images are reduced while they are read
ORIENTATION = 0x0112  # the EXIF tag


class ImageError(UserError):
    """An image cannot be used; the message gives the reason but not the image's name."""


def find_images(inputs: Source | Sequence[Source]) -> tuple[list[str | np.ndarray], list[str]]:
    """List the images among the inputs, including those in folders.

    Args:
        inputs: A path, a folder, an array, or a list of these.

    Returns:
        Paths and arrays in the order of the inputs, with the images of a folder sorted by name; and
        the paths inside folders that are left out: subfolders and files without an image suffix.
        Hidden files (names that begin with a period) are in neither list.

    Raises:
        UserError: If an input is neither a path nor an array.
        UserError: If a folder holds no image, or there is no input.
    """
    images: list[str | np.ndarray] = []
    left_out: list[str] = []
    several = isinstance(inputs, Sequence) and not isinstance(inputs, str)
    for item in inputs if several else [inputs]:  # type: ignore[union-attr]
        if isinstance(item, np.ndarray):
            images.append(item)
        elif not isinstance(item, str | os.PathLike):
            raise UserError(f"an image is a path or an array, not {type(item).__name__}")
        elif not os.path.isdir(item):
            images.append(os.fspath(item))
        else:
            listed = [path for path in sorted(Path(item).iterdir()) if path.name[0] != "."]
            inside = [p for p in listed if p.suffix.lower() in SUFFIXES and not p.is_dir()]
            if not inside:
                raise UserError(f"the folder {item} holds no image ({', '.join(SUFFIXES)})")
            images.extend(str(path) for path in inside)
            left_out.extend(str(path) for path in listed if path not in set(inside))
    if not images:
        raise UserError(f"there is no image in {inputs!r}: give paths, folders or arrays")
    return images, left_out


def check_image_file(path: str | os.PathLike) -> None:
    """Refuse a file that would block its reader or exhaust the memory, by reading only its header.

    A file of an unknown format passes, because another reader may support it.

    Raises:
        ImageError: If it is a folder, pipe or device, or has more than ``MAX_PIXELS`` pixels.
        OSError: If the file does not exist or cannot be opened.
    """
    try:
        with _opened(path):
            pass
    except (ImageError, OSError) as error:
        if isinstance(error, ImageError) or error.errno is not None:
            raise
    except Exception:  # the actual reader will report the problem
        return


def read_image(source: Source, max_pixels: int = MAX_PIXELS) -> tuple[np.ndarray, tuple[int, int]]:
    """Read an image as 8-bit RGB, rotated by its EXIF orientation, without transparency.

    Args:
        source: A path; or an array of type uint8, (H, W), (H, W, 1), (H, W, 3) in BGR or
            (H, W, 4) in BGRA.
        max_pixels: Refuse a file whose image has more pixels than this.

    Returns:
        RGB values (h, w, 3), uint8; and the image's size (H, W). The values have this size unless
        the image has more than ``MAX_PIXELS_KEPT`` pixels; then each is a mean of several pixels.

    Raises:
        ImageError: If the image cannot be decoded or is too large, or the array has another type or
            shape.
        OSError: If the file does not exist or cannot be opened.
    """
    if isinstance(source, np.ndarray):
        return _rgb_of_array(source), (source.shape[0], source.shape[1])
    try:
        with _opened(source, max_pixels) as image:
            if image is None:
                raise ImageError(f"its format is not one of {', '.join(FORMATS)}")
            return _decode(image)
    except ImageError:
        raise
    except OSError as error:
        if error.errno is not None:
            raise
        raise ImageError(f"it cannot be decoded ({error})") from error
    except Exception as error:  # each decoder raises different errors
        raise ImageError(f"it cannot be decoded ({type(error).__name__}: {error})") from error


@contextmanager
def _opened(path: str | os.PathLike, max_pixels: int = MAX_PIXELS) -> Iterator[Image.Image | None]:
    """Open the image in a file and read only its header; None for an unknown format."""
    if not stat.S_ISREG(os.stat(path).st_mode):
        raise ImageError("it is a folder, pipe or device, not a file")
    with open(path, "rb") as file:
        image = _recognized(file)
        if image is not None and image.width * image.height > max_pixels:
            raise ImageError(
                f"it has {image.width} x {image.height} pixels, more than "
                f"{max_pixels / 1e6:.0f} million; cut it into tiles"
            )
        yield image


def _recognized(file: BinaryIO) -> Image.Image | None:
    """``Image.open`` without Pillow's own size limit; only ``FORMATS`` are tried."""
    Image.init()
    start = file.read(16)
    for name in FORMATS:
        opener, accepts = Image.OPEN.get(name, (None, None))
        if opener is not None and accepts is not None and accepts(start) is True:
            file.seek(0)
            return opener(file, "")
    return None


def _decode(image: Image.Image) -> tuple[np.ndarray, tuple[int, int]]:
    size, orientation = (image.height, image.width), image.getexif().get(ORIENTATION, 1)
    factor = _factor(image)
    if factor > 1:  # a JPEG can be reduced while it is decoded
        image.draft(None, (image.width // factor, image.height // factor))
        factor = _factor(image)
    rgb = _rgb(image) if factor == 1 else _reduced(image, factor)
    if orientation != 1:
        turned = Image.fromarray(rgb)
        turned.getexif()[ORIENTATION] = orientation
        rgb = np.asarray(ImageOps.exif_transpose(turned))
        size = size[::-1] if orientation in (5, 6, 7, 8) else size
    return rgb, size


def _reduced(image: Image.Image, factor: int) -> np.ndarray:
    """RGB values, each the mean of ``factor x factor`` pixels."""
    step = factor * max(1, 2**22 // (image.width * factor))
    bands = []  # converting the whole image would need twice the memory
    for top in range(0, image.height, step):
        band = image.crop((0, top, image.width, min(top + step, image.height)))
        bands.append(np.asarray(Image.fromarray(_rgb(band)).reduce(factor)))
    return np.concatenate(bands)


def _factor(image: Image.Image) -> int:
    """How many pixels are merged into one along each axis."""
    return int(np.ceil((image.width * image.height / MAX_PIXELS_KEPT) ** 0.5))


def _rgb(image: Image.Image) -> np.ndarray:
    """The values (H, W, 3), uint8, of an image of any mode."""
    if image.mode[0] not in "IF":
        return np.asarray(image.convert("RGB"))
    values = np.asarray(image)  # gray values with more than 8 bits
    if image.mode == "F" or values.min() < 0 or values.max() > 65535:
        raise ImageError(f"its values have {8 * values.dtype.itemsize} bits; save it with 8 bits")
    return _three_channels((values >> 8).astype(np.uint8))


def _rgb_of_array(array: np.ndarray) -> np.ndarray:
    if array.dtype != np.uint8 or array.size == 0:
        raise ImageError(
            f"it has type {array.dtype} and shape {array.shape}; give values 0..255 of type uint8"
        )
    if array.ndim == 2:
        return _three_channels(array)
    if array.ndim == 3 and array.shape[2] == 1:
        return _three_channels(array[..., 0])
    if array.ndim == 3 and array.shape[2] in (3, 4):
        return np.ascontiguousarray(array[..., 2::-1])
    raise ImageError(f"it has shape {array.shape}; give (H, W), or (H, W, 3) in BGR")


def _three_channels(gray: np.ndarray) -> np.ndarray:
    return np.repeat(gray[..., None], 3, axis=2)
