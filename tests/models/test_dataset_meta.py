from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from mmseg.apis import MMSegInferencer, init_model
from mmseg.registry import MODELS

from tests.helpers.small_configs import small


def test_mmsegs_tools_show_the_models_classes(tmp_path: Path) -> None:
    """A checkpoint of one dataset, tested on another: the legend is that of the test's classes."""
    config = small("otseg/voc_512.py", tmp_path)
    torch.manual_seed(0)
    names = MODELS.build(config.model).neck.text.split.classes
    meta = {"classes": names[::-1], "palette": [[i, 0, 0] for i in range(len(names))]}
    state = MODELS.build(config.model).state_dict()
    torch.save({"state_dict": state, "meta": {"dataset_meta": meta}}, tmp_path / "w.pth")
    model = init_model(config, str(tmp_path / "w.pth"), device="cpu")
    assert model.dataset_meta["classes"] == names
    assert model.dataset_meta["palette"] == meta["palette"][::-1]  # a name keeps its color
    config.dump(str(tmp_path / "config.py"))
    stock = MMSegInferencer(str(tmp_path / "config.py"), str(tmp_path / "w.pth"), device="cpu")
    stock(np.zeros((64, 64, 3), np.uint8), return_vis=True)
    assert tuple(stock.visualizer.dataset_meta["classes"]) == names
