"""Pascal VOC without its background class, as the zero-shot protocol uses it."""

from __future__ import annotations

from typing import Any

from mmseg.datasets import PascalVOCDataset
from mmseg.registry import DATASETS


@DATASETS.register_module()
class PascalVOC20Dataset(PascalVOCDataset):
    """Pascal VOC 2012 with 20 classes; background pixels are ignored (255).

    In the label files, 0 is the background, 1..20 are the classes and 255 marks object outlines.

    Args:
        ann_file: List of the image names, as in ``PascalVOCDataset``.
        reduce_zero_label: Whether 0 is the background in the files. Set it to False for files that
            already hold 0..19 and 255.
        **kwargs: As in ``PascalVOCDataset``.
    """

    METAINFO = {
        "classes": PascalVOCDataset.METAINFO["classes"][1:],
        "palette": PascalVOCDataset.METAINFO["palette"][1:],
    }

    def __init__(self, ann_file: str, reduce_zero_label: bool = True, **kwargs: Any) -> None:
        super().__init__(ann_file=ann_file, reduce_zero_label=reduce_zero_label, **kwargs)
