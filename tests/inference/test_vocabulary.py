from __future__ import annotations

from typing import Any

import pytest
import torch

from mmseg_otseg.inference import set_classes, with_classes


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
    other = with_classes(model, ["cat", "zebra"])
    assert len(predict(other, image)) == 2 and other.dataset_meta["classes"] == ("cat", "zebra")
    assert torch.equal(predict(model, image), before) and model.neck.text.split.classes == names
    set_classes(model, ["sofa"])
    assert len(predict(other, image)) == 2 and len(predict(model, image)) == 1
    weights = {id(weight) for weight in model.backbone.parameters()}
    assert weights == {id(weight) for weight in other.backbone.parameters()}
    assert set(other.state_dict()) == set(model.state_dict())
