"""Several names of a class: the largest of what each name would give alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from mmseg.registry import MODELS
from torch import Tensor

from mmseg_otseg.inference import set_classes, with_classes
from mmseg_otseg.models.segmentors import resolve_model
from tests.helpers.small_configs import small

NAMES = ("sofa", "couch", "settee")
SPLIT = {"classes": ["sofa | couch | settee", "cat"], "unseen": ["cat"]}


def predict(model: Any, refine: bool = False) -> Tensor:
    """Class maps (1, K, h, w) of an image larger than a window."""
    image = torch.randn(1, 3, 64, 96, generator=torch.Generator().manual_seed(0))
    metas = [dict(img_shape=image.shape[2:], ori_shape=image.shape[2:])]
    with torch.no_grad():
        return model.inference(image, metas, refine=refine)


@pytest.mark.parametrize(
    ("config", "refine"),
    [("otseg/voc_512.py", True), ("zegot/voc_512.py", False), ("zegclip/voc_512.py", False)],
)
def test_the_largest_of_three_runs(config: str, refine: bool, tmp_path: Path) -> None:
    model = with_classes(MODELS.build(small(config, tmp_path).model).eval(), SPLIT)
    found = predict(model, refine)
    assert found.shape[1] == model.num_classes == 2 and model.out_channels == 4
    assert model.dataset_meta["classes"] == ("sofa", "cat")
    alone = [
        predict(with_classes(model, {"classes": [name, "cat"], "unseen": ["cat"]}), refine)
        for name in NAMES
    ]
    assert torch.allclose(found, torch.stack(alone).amax(0), atol=1e-5)
    assert not torch.allclose(found, alone[0], atol=1e-5)


def test_from_the_config_and_in_training(tmp_path: Path) -> None:
    cfg = small("otseg/voc_512.py", tmp_path)
    cfg.model.split = SPLIT
    model = MODELS.build(cfg.model)
    assert predict(model.eval()).shape[1] == 2
    aligned = model.train().extract_feat(torch.randn(2, 3, 64, 64))
    assert aligned.queries.shape[1] == 1 and aligned.classes.tolist() == [0]  # the first seen name
    model.neck.train_classes = "all"
    assert model.extract_feat(torch.randn(2, 3, 64, 64)).classes.tolist() == [0, 1]
    assert resolve_model(resolve_model(cfg.model)) == resolve_model(cfg.model)


def test_a_class_is_seen_if_its_first_name_was(tmp_path: Path) -> None:
    model = MODELS.build(small("otseg/voc_512.py", tmp_path).model).eval()
    set_classes(model, [["cat", "kitten"], ["couch", "sofa"]])
    assert model.neck(model.backbone(torch.zeros(1, 3, 32, 32))).seen.tolist() == [
        True,
        True,
        False,
        False,
    ]
