"""Finds images and reads them with a limit on their size."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from threading import RLock

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from mmseg_otseg.errors import UserError

Source = str | os.PathLike | np.ndarray

SUFFIXES = (
    *(".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff", ".webp", ".gif"),
    *(".ppm", ".pgm", ".mpo", ".jp2", ".avif"),
)
"""Of all files that are taken for images, whatever they are used for."""
# Formats that Pillow decodes itself, AVIF since 11.3. For others it may start another program.
FORMATS = ("JPEG", "PNG", "BMP", "TIFF", "WEBP", "GIF", "PPM", "JPEG2000", "AVIF")
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
        UserError: If an input is neither a path nor an array, a folder holds no image, or there is
            no input.
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
                raise UserError(
                    f"the folder {item} holds no image ({', '.join(SUFFIXES)}), and folders in it "
                    "are not searched"
                )
            images.extend(str(path) for path in inside)
            left_out.extend(str(path) for path in listed if path not in set(inside))
    if not images:
        raise UserError(f"there is no image in {inputs!r}: give paths, folders or arrays")
    return images, left_out


def check_image_file(path: str | os.PathLike) -> None:
    """Refuse an image that would exhaust the memory, by reading only its header.

    A file of an unknown format passes, because another reader may support it.

    Raises:
        ImageError: If it has more than ``MAX_PIXELS`` pixels.
        OSError: If the file does not exist or cannot be opened.
    """
    try:
        with _opened(path):
            pass
    except Exception as error:  # other problems are for the actual reader to report
        if isinstance(error, ImageError) or getattr(error, "errno", None) is not None:
            raise


def read_image(source: Source) -> tuple[np.ndarray, tuple[int, int]]:
    """Read an image as 8-bit RGB, rotated by its EXIF orientation, without transparency.

    Args:
        source: A path; or an array of type uint8, (H, W), (H, W, 1), (H, W, 3) in BGR or
            (H, W, 4) in BGRA.

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
        with _opened(source) as image:
            return _decode(image)
    except ImageError:
        raise
    except UnidentifiedImageError as error:
        raise ImageError(f"its format is not one of {', '.join(FORMATS)}") from error
    except OSError as error:
        if error.errno is not None:
            raise
        raise ImageError(f"it cannot be decoded ({error})") from error
    except Exception as error:  # each decoder raises different errors
        raise ImageError(f"it cannot be decoded ({type(error).__name__}: {error})") from error


_pillow = RLock()


@contextmanager
def _opened(path: str | os.PathLike) -> Iterator[Image.Image]:
    """Open an image file and read its header; the limit on its pixels is ours, not Pillow's."""
    Image.init()
    formats = [name for name in FORMATS if name in Image.OPEN]
    with _pillow, open(path, "rb") as file:
        limit, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None
        try:
            image = Image.open(file, formats=formats)
            if image.width * image.height > MAX_PIXELS:
                raise ImageError(
                    f"it has {image.width} x {image.height} pixels, more than "
                    f"{MAX_PIXELS / 1e6:.0f} million; cut it into tiles"
                )
            yield image
        finally:
            Image.MAX_IMAGE_PIXELS = limit


def _decode(image: Image.Image) -> tuple[np.ndarray, tuple[int, int]]:
    width, height = image.size
    factor = _factor(image)
    if factor > 1:  # a JPEG can be reduced while it is decoded
        image.draft(None, (width // factor, height // factor))
    opened = image.size
    image.load()
    if image.size != opened:  # Pillow turns a TIFF upright itself; before version 11, only here
        width, height = height, width
    orientation = image.getexif().get(ORIENTATION, 1)
    # OpenCV, which reads training images, puts transparent TIFFs on black.
    on_black = image.format == "TIFF" and image.mode in ("LA", "RGBA")
    factor = _factor(image)
    if factor == 1:
        rgb = _rgb(image, on_black)
    else:
        step = factor * max(1, 2**22 // (image.width * factor))
        bands = []  # converting the whole image would need twice the memory
        for top in range(0, image.height, step):
            band = image.crop((0, top, image.width, min(top + step, image.height)))
            bands.append(np.asarray(Image.fromarray(_rgb(band, on_black)).reduce(factor)))
        rgb = np.concatenate(bands)
    if orientation != 1:
        turned = Image.fromarray(rgb)
        turned.getexif()[ORIENTATION] = orientation
        rgb = np.asarray(ImageOps.exif_transpose(turned))
        if orientation in (5, 6, 7, 8):
            width, height = height, width
    return rgb, (height, width)


def _factor(image: Image.Image) -> int:
    """How many pixels are merged into one along each axis."""
    return int(np.ceil((image.width * image.height / MAX_PIXELS_KEPT) ** 0.5))


def _rgb(image: Image.Image, on_black: bool) -> np.ndarray:
    """The values (H, W, 3), uint8, of an image of any mode."""
    if on_black:
        color = np.asarray(image.convert("RGB"), np.uint16)
        alpha = np.asarray(image.getchannel("A"), np.uint16)[..., None]
        return ((color * alpha + 127) // 255).astype(np.uint8)
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
    if array.ndim == 2 or (array.ndim == 3 and array.shape[2] == 1):
        return _three_channels(array.reshape(array.shape[:2]))
    if array.ndim == 3 and array.shape[2] in (3, 4):
        return np.ascontiguousarray(array[..., 2::-1])
    raise ImageError(f"it has shape {array.shape}; give (H, W), or (H, W, 3) in BGR")


def _three_channels(gray: np.ndarray) -> np.ndarray:
    return np.repeat(gray[..., None], 3, axis=2)
