"""The package computes what the authors' released code computes."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from mmseg_otseg_cli.authors_to_mmseg import convert_state_dict
from torch import nn

from tests.helpers.reference import Reference, relative_error


@pytest.fixture(params=[("otseg", "a"), ("otseg", "b"), ("zegclip", "b")], ids="-".join)
def reference(request: pytest.FixtureRequest) -> Reference:
    method, name = request.param
    return Reference(name, method)


@pytest.fixture
def model(reference: Reference, tmp_path: Path) -> nn.Module:
    return reference.model(tmp_path)


def test_features(reference: Reference, model: nn.Module) -> None:
    features = model.extract_feat(reference.tensor("input/image"))
    assert relative_error(features.pixels[0], reference.tensor("output/patch_embeddings")) < 1e-4
    tokens = model.backbone(reference.tensor("input/image")).global_token
    assert relative_error(tokens, reference.tensor("output/cls_embedding")) < 1e-4


def test_training_logits_losses_and_gradients(reference: Reference, model: nn.Module) -> None:
    model.train()
    features = model.extract_feat(reference.tensor("input/image"))
    maps = model.decode_head(features)
    for name, logits in maps.items():
        expected = reference.output("logits", name)
        upsampled = nn.functional.interpolate(logits, expected.shape[2:], mode="bilinear")
        assert relative_error(upsampled, expected) < 1e-4, name

    losses = model.decode_head.loss(features, reference.samples())
    for name in maps:
        for kind in ("loss_mask", "loss_dice"):
            expected = reference.output(kind, name)
            assert relative_error(losses[f"{name}.{kind}"], expected) < 1e-4, (name, kind)

    sum(losses.values()).backward()
    parameters = dict(model.named_parameters())
    gradients, _ = convert_state_dict(reference.group("grad/"))
    named = gradients.keys() & parameters.keys()
    assert len(named) == len(reference.group("grad/")) - 1  # the first prompts join the others
    for name in named:
        assert relative_error(parameters[name].grad, gradients[name]) < 1e-3, name


@pytest.mark.parametrize(("setting", "bias"), [("inductive", 0.1), ("transductive", 0.0)])
def test_predictions(reference: Reference, model: nn.Module, setting: str, bias: float) -> None:
    model.eval()
    model.decode_head.seen_bias = bias
    image = reference.tensor("input/image")
    with torch.no_grad():
        samples = model.predict(image)
    predicted = torch.stack([sample.seg_logits.data for sample in samples])
    assert relative_error(predicted, reference.tensor(f"output/test_{setting}")) < 1e-4
