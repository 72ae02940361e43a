"""Pairs images with label files by their names."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff", ".webp", ".ppm")
LABEL_SUFFIXES = (".png", ".bmp", ".tif", ".tiff", ".gif")  # lossless formats
_SHOWN = 5


class DataFolderError(FileNotFoundError):
    """A data folder or a file in it is missing; the message says which and what to do."""


@dataclass(frozen=True)
class FolderPairs:
    """Images in one folder and label files in another, paired by name.

    Attributes:
        pairs: (image, label file), sorted by image.
        lone_images: Images without a label file.
        lone_labels: Label files without an image.
        label_ending: Text between the image's name and the suffix of each label file, such as
            ``"_L"``; often empty.
    """

    pairs: tuple[tuple[str, str], ...]
    lone_images: tuple[str, ...]
    lone_labels: tuple[str, ...]
    label_ending: str

    @classmethod
    def find(cls, images: str, labels: str) -> FolderPairs:
        """Pair the files in two folders and all their subfolders.

        A label file has the same name as its image except for the suffix. All label files may also
        have the same additional ending, as in ``0001.jpg`` and ``0001_L.png``.

        Args:
            images: Folder of the images.
            labels: Folder of the label files.

        Raises:
            DataFolderError: If a folder does not exist or holds no such files, the label files are
                JPEGs, two files in a folder differ only in the suffix, or no label file has the
                name of an image.
        """
        image_of = _by_name(_files(images, "images", IMAGE_SUFFIXES))
        label_files = _files(labels, "label files", LABEL_SUFFIXES)
        ending = _common_ending(label_files, image_of)
        label_of = {
            name.removesuffix(ending): path
            for name, path in _by_name(label_files).items()
            if name.endswith(ending)
        }
        used = {label_of[name] for name in image_of if name in label_of}
        pairs = cls(
            tuple((image, label_of[name]) for name, image in image_of.items() if name in label_of),
            tuple(image for name, image in image_of.items() if name not in label_of),
            tuple(path for _, path in label_files if path not in used),
            ending,
        )
        if not pairs.pairs:
            raise DataFolderError(
                f"no label file in {labels} has the name of an image in {images}: the images are "
                f"{some_names(pairs.lone_images)}, the label files "
                f"{some_names(pairs.lone_labels)}. Give each label file the name of its image."
            )
        return pairs


def where(path: str) -> str:
    """A path as given and, if it is relative, the absolute path in parentheses."""
    full = os.path.abspath(path)
    return path if full == path else f"{path} ({full})"


def some_names(paths: Iterable[str]) -> str:
    """The names of the first few files, and how many more there are."""
    names = [Path(path).name for path in paths]
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return ", ".join(names[:_SHOWN]) + more


def _files(folder: str, what: str, suffixes: tuple[str, ...]) -> list[tuple[str, str]]:
    """(Relative name without suffix, path) of the files with one of the suffixes, sorted."""
    if not os.path.isdir(folder):
        raise DataFolderError(
            f"the folder {where(folder)}, where the {what} should be, does "
            "not exist. Put them there, or set `data_root` to the folder that holds `images` and "
            "`labels`."
        )
    found = [path for path in sorted(Path(folder).rglob("*")) if not path.name.startswith(".")]
    files = [path for path in found if path.suffix.lower() in suffixes and path.is_file()]
    if not files:
        others = sorted({path.suffix.lower() for path in found if path.is_file()})
        jpeg = suffixes == LABEL_SUFFIXES and {".jpg", ".jpeg"} & set(others)
        raise DataFolderError(
            f"the folder {folder} holds no {what} ({', '.join(suffixes)})"
            + (f", only other files ({', '.join(others)})" if others else "")
            + ". "
            + (
                "JPEG changes the values of labels: save them as PNG. If these are the images, "
                "`images` and `labels` are swapped."
                if jpeg
                else "Put them there, or set `data_root`."
            )
        )
    return [(path.relative_to(folder).with_suffix("").as_posix(), str(path)) for path in files]


def _by_name(files: list[tuple[str, str]]) -> dict[str, str]:
    paths: dict[str, str] = {}
    for name, path in files:
        if name in paths:
            raise DataFolderError(
                f"{paths[name]} and {path} have the same name except for the suffix. Remove or "
                "rename one of them."
            )
        paths[name] = path
    return paths


def _common_ending(labels: list[tuple[str, str]], image_of: dict[str, str]) -> str:
    """The most frequent text after an image's name in the label files' names, perhaps empty."""
    endings: Counter[str] = Counter()
    for name, _ in labels:
        cut = next((end for end in range(len(name), 0, -1) if name[:end] in image_of), None)
        if cut is not None:
            endings[name[cut:]] += 1
    return endings.most_common(1)[0][0] if endings else ""
