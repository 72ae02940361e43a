"""Other class names than those of the config, with synonyms."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from mmengine.config import Config
from mmseg.registry import MODELS

from mmseg_otseg.inference import copy_with_classes, set_classes
from mmseg_otseg.models.segmentors import resolve_model


def predict(model: Any, image: torch.Tensor) -> torch.Tensor:
    with torch.no_grad():
        return model.predict(image)[0].seg_logits.data


@pytest.mark.parametrize("config", ["otseg/voc_512.py", "zegot/voc_512.py"], indirect=True)
def test_shared_classes_keep_their_logits(model: Any) -> None:
    names = ["cat", "sofa", "bicycle", *(f"thing {index}" for index in range(497))]
    image = torch.randn(1, 3, 64, 64)
    old = model.neck.text.split.classes
    before = predict(model, image)
    set_classes(model, names)
    after = predict(model, image)
    assert after.shape[0] == len(names) == model.decode_head.num_classes == model.out_channels
    for name in ("cat", "sofa", "bicycle"):
        difference = after[names.index(name)] - before[old.index(name)]
        assert difference.abs().max() < 1e-5, name
    assert model.dataset_meta["classes"] == tuple(names)
    set_classes(model, "voc")
    assert torch.allclose(predict(model, image), before, atol=1e-5)


def test_a_vocabulary_of_its_own(model: Any) -> None:
    image = torch.randn(1, 3, 64, 64)
    before, names = predict(model, image), model.neck.text.split.classes
    other = copy_with_classes(model, ["cat", "zebra"])
    assert len(predict(other, image)) == 2 and other.dataset_meta["classes"] == ("cat", "zebra")
    assert torch.equal(predict(model, image), before) and model.neck.text.split.classes == names
    set_classes(model, ["sofa"])
    assert len(predict(other, image)) == 2 and len(predict(model, image)) == 1
    weights = {id(weight) for weight in model.backbone.parameters()}
    assert weights == {id(weight) for weight in other.backbone.parameters()}
    assert set(other.state_dict()) == set(model.state_dict())


NAMES = ("sofa", "couch", "settee")
SPLIT = {"classes": ["sofa | couch | settee", "cat"], "unseen": ["cat"]}


def class_maps(model: Any, refine: bool = False) -> torch.Tensor:
    """Class maps (1, K, h, w) of an image larger than a window."""
    image = torch.randn(1, 3, 64, 96, generator=torch.Generator().manual_seed(0))
    metas = [dict(img_shape=image.shape[2:], ori_shape=image.shape[2:])]
    with torch.no_grad():
        return model.inference(image, metas, refine=refine)


@pytest.mark.parametrize(
    ("config", "refine"),
    [("otseg/voc_512.py", True), ("zegot/voc_512.py", False), ("zegclip/voc_512.py", False)],
    indirect=["config"],
)
def test_the_largest_of_three_runs(model: Any, refine: bool) -> None:
    model = copy_with_classes(model, SPLIT)
    found = class_maps(model, refine)
    assert found.shape[1] == model.num_classes == 2 and model.out_channels == 4
    assert model.dataset_meta["classes"] == ("sofa", "cat")
    alone = [
        class_maps(copy_with_classes(model, {"classes": [name, "cat"], "unseen": ["cat"]}), refine)
        for name in NAMES
    ]
    assert torch.allclose(found, torch.stack(alone).amax(0), atol=1e-5)
    assert not torch.allclose(found, alone[0], atol=1e-5)


def test_from_the_config_and_in_training(config: Config) -> None:
    config.model.split = SPLIT
    model = MODELS.build(config.model)
    assert class_maps(model.eval()).shape[1] == 2
    aligned = model.train().extract_feat(torch.randn(2, 3, 64, 64))
    assert aligned.queries.shape[1] == 1 and aligned.classes.tolist() == [0]  # the first seen name
    model.neck.train_classes = "all"
    assert model.extract_feat(torch.randn(2, 3, 64, 64)).classes.tolist() == [0, 1]
    assert resolve_model(resolve_model(config.model)) == resolve_model(config.model)


def test_a_class_is_seen_if_its_first_name_was(model: Any) -> None:
    set_classes(model, [["cat", "kitten"], ["couch", "sofa"]])
    features = model.backbone(torch.zeros(1, 3, 32, 32))
    assert model.neck(features).seen.tolist() == [True, True, False, False]
