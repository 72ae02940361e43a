"""A dataset in two folders, one with images and one with label files."""

from __future__ import annotations

from typing import Any

import numpy as np
from mmseg.datasets import BaseSegDataset
from mmseg.datasets.transforms import LoadAnnotations
from mmseg.registry import DATASETS

from mmseg_otseg.errors import UserError
from mmseg_otseg.structures import IGNORED

from .folder_pairs import DataFolderError, FolderPairs, some_names


@DATASETS.register_module()
class FolderDataset(BaseSegDataset):
    """Images in ``images/<subset>`` and their label files in ``labels/<subset>``.

    File suffixes, and an ending shared by all label files, are detected; see
    :class:`~mmseg_otseg.datasets.folder_pairs.FolderPairs`. A label file holds one value per pixel:
    the index of its class among the class names, or 255 for an ignored pixel.

    Args:
        data_root: Folder that holds ``images`` and ``labels``.
        subset: Name of the subfolders, such as ``"train"`` or ``"val"``.
        background: The label value of pixels that belong to no class. It becomes 255 (ignored), and
            the class names belong to the other values in increasing order: with ``background=0``,
            the first name belongs to the value 1. None means that the values 0..K-1 are the K
            classes.
        metainfo: ``dict(classes=[names])``, in the order of the label values, and perhaps the
            indices of ``unseen`` classes. Not needed inside a :class:`ZeroShotDataset`, which takes
            both from its class split.
        **kwargs: As in ``BaseSegDataset``.

    Raises:
        DataFolderError: If a folder is missing or empty, or an image has no label file.
        UserError: If the data folder or the class names are missing, or the background is not a
            label value.
    """

    def __init__(
        self,
        data_root: str | None = None,
        subset: str = "train",
        background: int | None = None,
        metainfo: dict | None = None,
        **kwargs: Any,
    ) -> None:
        if not data_root:
            raise UserError(
                "FolderDataset has no data folder: set `data_root` at the top of the config to the "
                "folder that holds `images` and `labels`."
            )
        if background is not None and not 0 <= background <= IGNORED:
            raise UserError(
                f"background={background} is not a label value: give 0 to {IGNORED}, or None if "
                "every label value is a class."
            )
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

    def find_pairs(self) -> FolderPairs:
        """Find the images and label files that the folders hold at the time of the call.

        Raises:
            DataFolderError: If a folder is missing or empty, or an image has no label file.
        """
        images, labels = (self.data_prefix[key] for key in ("img_path", "seg_map_path"))
        found = FolderPairs.find(images, labels)
        if found.lone_images:
            raise DataFolderError(
                f"{len(found.lone_images)} of {len(found.pairs) + len(found.lone_images)} images "
                f"in {images} have no label file in {labels}: "
                f"{some_names(found.lone_images, images)}. "
                "Add the label files, or remove the images."
            )
        return found

    def load_data_list(self) -> list[dict]:
        """The samples: their files, and the mapping from label values to class indices.

        Raises:
            DataFolderError: As in :meth:`find_pairs`.
            UserError: If there are no class names.
        """
        names = self.metainfo.get("classes")
        if not names:
            raise UserError("FolderDataset has no class names: give metainfo=dict(classes=[...]).")
        label_map = _label_map(len(names), self.background)
        return [
            {
                "img_path": image,
                "seg_map_path": label,
                "label_map": label_map,
                "reduce_zero_label": self.reduce_zero_label,
                "seg_fields": [],
            }
            for image, label in self.find_pairs().pairs
        ]

    def get_cat_ids(self, idx: int) -> list[int]:
        """The classes in a sample's label file, for mmengine's ``ClassBalancedDataset``.

        The unseen classes of ``metainfo`` are left out: training must not know where they are.
        """
        label = LoadAnnotations().transform(self.get_data_info(idx))["gt_seg_map"]
        classes = range(len(self.metainfo["classes"]))
        seen = set(classes) - set(self.metainfo.get("unseen", ()))
        return sorted(seen.intersection(np.unique(label).tolist()))


def _label_map(num_classes: int, background: int | None) -> dict[int, int] | None:
    """Map each label value that differs from its class index to that index.

    None if there is no such value, or if the background is 0, which mmseg's loader handles.
    """
    if background in (None, 0, IGNORED):
        return None
    assert background is not None
    above = {value: value - 1 for value in range(background + 1, num_classes + 1)}
    return {background: IGNORED, **above}
