"""Pascal VOC in the layout of mmseg's guide, without background."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from mmseg_otseg.datasets import ZeroShotDataset


@pytest.mark.parametrize(("setting", "hidden"), [("inductive", 255), ("transductive", 254)])
def test_zero_shot(write_data, setting, hidden):
    """A label file with every value of VOC: 0 = background, 1..20, 255 = outline."""
    label = np.array([*range(21), 255, 255, 255], dtype=np.uint8).reshape(4, 6)
    root = write_data([label])
    mask = Image.fromarray(label)  # with a palette, as VOC's own: the values are its indices
    mask.putpalette(np.random.default_rng(0).integers(0, 256, 768).astype(np.uint8).tolist())
    mask.save(root / "labels" / "0.png")
    Image.open(root / "images" / "0.png").save(root / "images" / "0.jpg")
    (root / "val.txt").write_text("0\n")
    config = dict(
        type="PascalVOC20Dataset",
        data_root=str(root),
        data_prefix=dict(img_path="images", seg_map_path="labels"),
        ann_file="val.txt",
        pipeline=[dict(type="mmseg.LoadAnnotations")],
    )
    label = ZeroShotDataset(config, "voc", setting=setting)[0]["gt_seg_map"].ravel()
    assert label.tolist() == [255, *range(15), *[hidden] * 5, 255, 255, 255]
