"""A dataset in two folders, one with images and one with label files."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from mmseg.datasets import BaseSegDataset
from mmseg.datasets.transforms import LoadAnnotations
from mmseg.registry import DATASETS

from mmseg_otseg.errors import UserError, listed
from mmseg_otseg.imaging.reading import SUFFIXES
from mmseg_otseg.structures import ClassSplit

from .guarded_pipeline import GuardedPipeline
from .label_rule import LabelRule

LABEL_SUFFIXES = (".png", ".bmp", ".tif", ".tiff", ".gif")  # lossless formats


class FolderPairs(NamedTuple):
    """Images in one folder and label files in another, paired by name.

    Attributes:
        pairs: (image, label file), sorted by image.
        lone_images: Images without a label file.
        lone_labels: Label files without an image.
    """

    pairs: list[tuple[str, str]]
    lone_images: list[str]
    lone_labels: list[str]


@DATASETS.register_module()
class FolderDataset(BaseSegDataset):
    """Images in ``images/<subset>`` and their label files in ``labels/<subset>``.

    File suffixes, and an ending shared by all label files, are detected; see :meth:`find_pairs`.
    A label file of 8 or 16 bits holds one value per pixel:
    the index of its class among the class names, or ``ignore_index`` for an ignored pixel; see
    :class:`LabelRule`.

    Args:
        data_root: Folder that holds ``images`` and ``labels``.
        subset: Name of the subfolders, such as ``"train"`` or ``"val"``.
        background: The label value of pixels that belong to no class. They are ignored, unless a
            class split says that the background counts. The class names belong to the other values
            in increasing order: with ``background=0``, the first name belongs to the value 1. None
            means that the values 0..K-1 are the K classes.
        metainfo: ``dict(classes=[names])``, in the order of the label values, and perhaps the
            indices of ``unseen`` classes. Not needed inside a :class:`ZeroShotDataset`, which takes
            both from its class split.
        **kwargs: As in ``BaseSegDataset``.

    Raises:
        FileNotFoundError: If a folder is missing or empty, or an image has no label file.
        UserError: If the class names are missing.
    """

    pipeline: Any

    def __init__(
        self,
        data_root: str = "",
        subset: str = "train",
        background: int | None = None,
        metainfo: dict | None = None,
        **kwargs: Any,
    ) -> None:
        self.background = background
        super().__init__(
            data_root=data_root,
            metainfo=metainfo,
            data_prefix={"img_path": f"images/{subset}", "seg_map_path": f"labels/{subset}"},
            img_suffix="",  # any suffix: the files are found by `find_pairs`
            seg_map_suffix="",
            reduce_zero_label=background == 0,
            **kwargs,
        )
        if names := self.metainfo.get("classes"):
            split = ClassSplit(tuple(names), tuple(self.metainfo.get("unseen", ())))
            self.pipeline = GuardedPipeline(self.pipeline.transforms, LabelRule(split, self))

    def find_pairs(self) -> FolderPairs:
        """Pair the files in the two folders and all their subfolders, as they are now.

        A label file has the same name as its image except for the suffix. All label files may also
        have the same additional ending, as in ``0001.jpg`` and ``0001_L.png``.

        Raises:
            FileNotFoundError: If a folder does not exist or holds no such files, the label files
                are JPEGs, two files in a folder differ only in the suffix, or an image has no label
                file.
        """
        images, labels = (self.data_prefix[key] for key in ("img_path", "seg_map_path"))
        image_of = _files(images, "images", SUFFIXES)
        label_files = _files(labels, "label files", LABEL_SUFFIXES)
        ending = _common_ending(label_files, image_of)
        label_of = {n.removesuffix(ending): p for n, p in label_files.items() if n.endswith(ending)}
        found = FolderPairs(
            [(path, label_of[name]) for name, path in image_of.items() if name in label_of],
            [path for name, path in image_of.items() if name not in label_of],
            [p for n, p in label_files.items() if n.removesuffix(ending) not in image_of],
        )
        if not found.pairs:
            remedy = "Give each label file the name of its image."
            if {Path(name).name for name in image_of} & {Path(name).name for name in label_files}:
                remedy = "The names agree, the sub-folders do not: use the same ones in both."
            raise FileNotFoundError(
                f"no label file in {labels} has the name of an image in {images}: the images are "
                f"{listed_files(found.lone_images, images)}, the label files "
                f"{listed_files(found.lone_labels, labels)}. {remedy}"
            )
        if found.lone_images:
            raise FileNotFoundError(
                f"{len(found.lone_images)} of {len(image_of)} images in {images} have no label "
                f"file in {labels}: {listed_files(found.lone_images, images)}. "
                "Add the label files, or remove the images."
            )
        return found

    def load_data_list(self) -> list[dict]:
        """The samples: their files.

        Raises:
            FileNotFoundError, UserError: As in :meth:`find_pairs`, or if there are no class names.
        """
        if not self.metainfo.get("classes"):
            raise UserError("FolderDataset has no class names: give metainfo=dict(classes=[...]).")
        return [
            {
                "img_path": image,
                "seg_map_path": label,
                "label_map": None,
                "reduce_zero_label": self.reduce_zero_label,
                "seg_fields": [],
            }
            for image, label in self.find_pairs().pairs
        ]

    def get_cat_ids(self, idx: int) -> list[int]:
        """The classes in a sample's label file, for mmengine's ``ClassBalancedDataset``.

        The unseen classes of ``metainfo`` are left out: training must not know where they are.
        """
        reader = GuardedPipeline([LoadAnnotations()], self.pipeline.rule)
        label = reader.read_label(self.get_data_info(idx))
        classes = range(len(self.metainfo["classes"]))
        seen = set(classes) - set(self.metainfo.get("unseen", ()))
        return sorted(seen.intersection(np.unique(label).tolist()))


def full_path(path: str) -> str:
    """A path as given and, if it is relative, the absolute path in parentheses."""
    full = os.path.abspath(path)
    return path if full == path else f"{path} ({full})"


def listed_files(paths: Iterable[str], folder: str) -> str:
    """The names of the first few files in a folder, and how many more there are."""
    return listed([os.path.relpath(path, folder) for path in paths])


def _files(folder: str, what: str, suffixes: tuple[str, ...]) -> dict[str, str]:
    """The files with one of the suffixes, sorted: their paths by relative name without suffix."""
    if not os.path.isdir(folder):
        raise FileNotFoundError(
            f"the folder {full_path(folder)}, where the {what} should be, does not exist. Put them "
            "there, or set `data_root` to the folder that holds `images` and `labels`."
        )
    listed = [path for path in sorted(Path(folder).rglob("[!.]*")) if path.is_file()]
    files: dict[str, str] = {}
    for path in listed:
        if path.suffix.lower() in suffixes:
            name = path.relative_to(folder).with_suffix("").as_posix()
            if name in files:
                raise FileNotFoundError(
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
        raise FileNotFoundError(
            f"the folder {folder} holds no {what} ({', '.join(suffixes)}), only files of the kinds "
            f"{', '.join(others) or '(none)'}. {remedy}"
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
