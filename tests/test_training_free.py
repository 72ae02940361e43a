"""The registered components compute what NACLIP's released code computes, without training."""

from __future__ import annotations

from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from mmengine.config import ConfigDict
from mmseg.registry import MODELS
from torch import Tensor

from mmseg_otseg.models.segmentors.sliding import argmax_at_size
from tests.helpers.reference import Reference

KINDS = {"naclip": "naclip", "sclip": "sclip", "kk": "kk_reduced", None: "vanilla"}
CASES = [(name, kind) for name in "ab" for kind in KINDS]


def model_of(reference: Reference, kind: str | None, folder: Path, **test_cfg: Any) -> Any:
    """The training-free model of the arrays, as a config writes it."""
    owners = reference.tensor("input/class_of_name").tolist()
    names = [f"name {index}" for index in range(len(owners))]
    classes = [
        [names[index] for index, _ in group]
        for _, group in groupby(enumerate(owners), key=lambda pair: pair[1])
    ]
    np.save(folder / "text.npy", reference.arrays["input/text_embeddings"].mean(1))
    config = dict(
        type="CLIPEncoderDecoder",
        clip=reference.clip(),
        split=dict(classes=classes),
        data_preprocessor=dict(type="SegDataPreProcessor", bgr_to_rgb=True, mean=None, std=None),
        backbone=dict(type="CLIPBackbone", local_attention=kind, position_interpolation="bicubic"),
        neck=dict(
            type="DLFANeck",
            relationship_descriptor=False,
            text=dict(type="PrecomputedPrompts", path=str(folder / "text.npy"), names=names),
        ),
        decode_head=dict(type="SimilarityHead", scale=reference.config("logit_scale")),
        test_cfg=dict(mode="whole", **test_cfg),
    )
    model = MODELS.build(ConfigDict(config)).eval()
    model.backbone.visual.load_state_dict(reference.group("state/"))
    return model


def predict(model: Any, image: Tensor) -> Tensor:
    metas = [dict(img_shape=image.shape[2:], ori_shape=image.shape[2:])] * len(image)
    with torch.no_grad():
        return model.inference(image, metas)


@pytest.mark.parametrize(("name", "kind"), CASES)
def test_every_array_of_the_released_code(name: str, kind: str | None, tmp_path: Path) -> None:
    reference = Reference(name, "training_free")
    expected = reference.group(f"output/{KINDS[kind]}/")
    refines = "pamr_maps" in expected
    model = model_of(reference, kind, tmp_path, refine=refines)
    image = reference.tensor("input/image")

    with torch.no_grad():
        aligned = model.extract_feat(image)
        patches = aligned.pixels[0].flatten(2).transpose(1, 2)
        assert (patches - expected["patch_embeddings"]).abs().max() < 1e-5
        if "cosine_maps" in expected:
            metas = [dict(img_shape=image.shape[2:])] * 2
            maps = model.decode_head.predict(aligned, metas, None)
            assert (maps - expected["cosine_maps"]).abs().max() < 1e-5

    probabilities = predict(model, image)
    assert (probabilities - expected["class_probabilities"]).abs().max() < 1e-5
    threshold = float(expected["threshold"])
    for values, labels, thresholded in zip(
        probabilities, expected["labels"], expected["labels_thresholded"]
    ):
        found, best = argmax_at_size([values], values.shape[1:])
        assert torch.equal(found, labels.long())
        found[best < threshold] = 0
        assert torch.equal(found, thresholded.long())


def test_windows_are_averaged_before_the_softmax(tmp_path: Path) -> None:
    reference = Reference("a", "training_free")
    model, image = model_of(reference, "naclip", tmp_path), reference.tensor("input/image")
    image = torch.cat([image, image.flip(3)], dim=3)
    size = image.shape[2]
    model.test_cfg = ConfigDict(mode="slide", crop_size=(size, size), stride=(size, size // 2))
    metas = [dict(img_shape=(size, size))] * len(image)
    total, covered = torch.zeros(()), torch.zeros(image.shape[3])
    with torch.no_grad():
        for start in (0, size // 2, size):
            window = image[..., start : start + size]
            cosines = model.decode_head.predict(model.extract_feat(window), metas, None)
            total = total + F.pad(cosines, (start, size - start))
            covered[start : start + size] += 1
    split = model.neck.text.split
    expected = (reference.config("logit_scale") * total / covered).softmax(1)
    expected = [part.amax(1) for part in expected.split(split.names_per_class, dim=1)]
    assert torch.allclose(predict(model, image), torch.stack(expected, dim=1), atol=1e-6)
