"""A dataset that is two folders: images and label files."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from mmseg.datasets import BaseSegDataset
from mmseg.registry import DATASETS

from mmseg_otseg.structures import IGNORED

from .folder_pairs import DataFolderError, FolderPairs, some_names


@DATASETS.register_module()
class FolderDataset(BaseSegDataset):
    """Images in ``images/<part>`` and their label files in ``labels/<part>``.

    Suffixes, and an ending that all label files share, are found by looking, see
    :class:`~mmseg_otseg.datasets.folder_pairs.FolderPairs`. A label file holds one value per pixel:
    the index of its class in ``classes``, or 255 for a pixel that is ignored.

    Args:
        data_root: Folder that holds ``images`` and ``labels``.
        classes: Class names in the order of their label values.
        part: Name of the sub-folders, ``"train"`` or ``"val"``.
        background: The label value of pixels that belong to none of the classes. They are ignored,
            in training and in testing, and the names in ``classes`` are those of the other values:
            with ``background=0`` the first name is that of the value 1. None: every value 0..K-1
            is a class.
        **kwargs: As in ``BaseSegDataset``.

    Raises:
        DataFolderError: For folders that are missing or empty, and for images without a label
            file.
        ValueError: For a background that is no label value.
    """

    def __init__(
        self,
        data_root: str,
        classes: Sequence[str],
        part: str = "train",
        background: int | None = None,
        **kwargs: Any,
    ) -> None:
        if background is not None and not 0 <= background <= IGNORED:
            raise ValueError(
                f"background={background} is no label value: give 0 to {IGNORED}, or None if "
                "every label value is a class."
            )
        super().__init__(
            data_root=data_root,
            metainfo={"classes": list(classes)},
            data_prefix={"img_path": f"images/{part}", "seg_map_path": f"labels/{part}"},
            img_suffix="",  # any: they are found by looking
            seg_map_suffix="",
            reduce_zero_label=background == 0,
            lazy_init=True,
            **{key: value for key, value in kwargs.items() if key != "lazy_init"},
        )
        self.background = background
        self.label_map = _label_map(len(classes), background)
        self._metainfo["label_map"] = self.label_map
        if not kwargs.get("lazy_init", False):
            self.full_init()

    def find_pairs(self) -> FolderPairs:
        """Images and label files as they lie in the folders now."""
        return FolderPairs.find(*(self.data_prefix[key] for key in ("img_path", "seg_map_path")))

    def load_data_list(self) -> list[dict]:
        """The samples: their files, and how their label values become class indices."""
        found = self.find_pairs()
        if found.lone_images:
            raise DataFolderError(
                f"{len(found.lone_images)} of {len(found.pairs) + len(found.lone_images)} images "
                f"in {self.data_prefix['img_path']} have no label file in "
                f"{self.data_prefix['seg_map_path']}: {some_names(found.lone_images)}. Add the "
                "label files, or take the images away."
            )
        return [
            {
                "img_path": image,
                "seg_map_path": label,
                "label_map": self.label_map,
                "reduce_zero_label": self.reduce_zero_label,
                "seg_fields": [],
            }
            for image, label in found.pairs
        ]


def _label_map(num_classes: int, background: int | None) -> dict[int, int] | None:
    """Class index of every label value that is not its own; 0 is taken out by the loader."""
    if background in (None, 0, IGNORED):
        return None
    assert background is not None
    above = {value: value - 1 for value in range(background + 1, num_classes + 1)}
    return {background: IGNORED, **above}
