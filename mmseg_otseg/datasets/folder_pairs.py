"""Pairs images with label files by their names."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from mmseg_otseg.imaging.reading import SUFFIXES

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
    """

    pairs: tuple[tuple[str, str], ...]
    lone_images: tuple[str, ...]
    lone_labels: tuple[str, ...]

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
        image_of = _files(images, "images", SUFFIXES)
        label_files = _files(labels, "label files", LABEL_SUFFIXES)
        ending = _common_ending(label_files, image_of)
        label_of = {
            name.removesuffix(ending): path
            for name, path in label_files.items()
            if name.endswith(ending)
        }
        pairs = tuple((path, label_of[name]) for name, path in image_of.items() if name in label_of)
        used = {label for _, label in pairs}
        found = cls(
            pairs,
            tuple(path for name, path in image_of.items() if name not in label_of),
            tuple(path for path in label_files.values() if path not in used),
        )
        if not pairs:
            remedy = "Give each label file the name of its image."
            if {Path(name).name for name in image_of} & {Path(name).name for name in label_files}:
                remedy = "The names agree, the sub-folders do not: use the same ones in both."
            raise DataFolderError(
                f"no label file in {labels} has the name of an image in {images}: the images are "
                f"{some_names(found.lone_images, images)}, the label files "
                f"{some_names(found.lone_labels, labels)}. {remedy}"
            )
        return found


def where(path: str) -> str:
    """A path as given and, if it is relative, the absolute path in parentheses."""
    full = os.path.abspath(path)
    return path if full == path else f"{path} ({full})"


def some_names(paths: Iterable[str], folder: str) -> str:
    """The names of the first few files in a folder, and how many more there are."""
    names = [os.path.relpath(path, folder) for path in paths]
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return ", ".join(names[:_SHOWN]) + more


def _files(folder: str, what: str, suffixes: tuple[str, ...]) -> dict[str, str]:
    """The files with one of the suffixes, sorted: their paths by relative name without suffix."""
    if not os.path.isdir(folder):
        raise DataFolderError(
            f"the folder {where(folder)}, where the {what} should be, does "
            "not exist. Put them there, or set `data_root` to the folder that holds `images` and "
            "`labels`."
        )
    listed = [path for path in sorted(Path(folder).rglob("*")) if path.is_file()]
    listed = [path for path in listed if not path.name.startswith(".")]
    files: dict[str, str] = {}
    for path in listed:
        if path.suffix.lower() in suffixes:
            name = path.relative_to(folder).with_suffix("").as_posix()
            if name in files:
                raise DataFolderError(
                    f"{files[name]} and {path} have the same name except for the suffix. Remove or "
                    "rename one of them."
                )
            files[name] = str(path)
    if not files:
        others = sorted({path.suffix.lower() for path in listed})
        remedy = "Put them there, or set `data_root`."
        if suffixes == LABEL_SUFFIXES and {".jpg", ".jpeg"} & set(others):
            remedy = (
                "JPEG changes the values of labels: save them as PNG. If these are the images, "
                "`images` and `labels` are swapped."
            )
        raise DataFolderError(
            f"the folder {folder} holds no {what} ({', '.join(suffixes)})"
            + (f", only other files ({', '.join(others)})" if others else "")
            + f". {remedy}"
        )
    return files


def _common_ending(labels: Iterable[str], images: Iterable[str]) -> str:
    """The most frequent text after an image's name in the label files' names, perhaps empty."""
    known, endings = set(images), Counter[str]()
    for name in labels:
        cut = next((end for end in range(len(name), 0, -1) if name[:end] in known), None)
        if cut is not None:
            endings[name[cut:]] += 1
    return endings.most_common(1)[0][0] if endings else ""
