"""A calibrated seen-class bias comes with the checkpoint, and ends with its weights."""

from __future__ import annotations

import re
from collections.abc import Callable

import pytest
import torch
from mmseg.registry import MODELS

from mmseg_otseg.models.decode_heads import zero_shot_head
from mmseg_otseg.models.decode_heads.zero_shot_head import ZeroShotHead


def head(**changes) -> ZeroShotHead:
    return MODELS.build(dict(type="MPSAHead", num_classes=3, embed_dim=32, **changes)).eval()


def state(**biases: float) -> dict[str, torch.Tensor]:
    """Weights of a head with calibrated biases by the kind of prediction."""
    stored = {f"calibrated_seen_bias.{kind}": torch.tensor(bias) for kind, bias in biases.items()}
    return {**head().state_dict(), **stored}


@pytest.fixture
def said(monkeypatch: pytest.MonkeyPatch) -> Callable[[], str]:
    """What was logged so far."""
    lines: list[str] = []
    monkeypatch.setattr(zero_shot_head, "print_log", lambda text, logger: lines.append(text))
    return lambda: "\n".join(lines)


def test_comes_with_the_checkpoint_and_ends_with_training(said: Callable[[], str]) -> None:
    model = head()
    model.load_state_dict(state(ensemble=0.25), strict=True)
    assert model.seen_bias == 0.25 and " 0.25, calibrated" in said()
    model.load_state_dict(state())
    assert model.seen_bias == 0.1
    model.load_state_dict(state(ensemble=0.25))
    model.train()
    assert model.seen_bias == 0.1 and " 0.1." in said()
    assert not any("calibrated" in key for key in model.state_dict())


def test_the_configs_word_is_the_last(said: Callable[[], str]) -> None:
    model = head(seen_bias=0.0)
    model.load_state_dict(state(ensemble=0.25))
    assert model.seen_bias == 0 and re.search(r" 0, .* 0\.25", said())


def test_holds_for_the_prediction_it_was_calibrated_for(said: Callable[[], str]) -> None:
    model = head(predict_from="decoder")
    model.load_state_dict(state(ensemble=0.25))
    assert model.seen_bias == 0.1 and " 0.25 for ensemble" in said()
    model.load_state_dict(state(ensemble=0.25, decoder=0.5))
    assert model.seen_bias == 0.5
