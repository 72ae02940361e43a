from __future__ import annotations

import pytest
import torch
from mmengine.config import Config

from mmseg_otseg.evaluation import store_seen_bias
from mmseg_otseg.inference import OTSegInferencer
from mmseg_otseg.models.decode_heads import seen_bias


def test_the_inferencer_uses_the_bias_of_the_checkpoint(
    config: Config, weights: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[str] = []
    monkeypatch.setattr(seen_bias, "print_log", lambda text, logger: said.append(text))
    assert OTSegInferencer(config, weights, device="cpu").model.decode_head.seen_bias == 0.1
    store_seen_bias(config, weights, 0.25, weights)
    assert torch.load(weights)["meta"]  # what else the file holds is still there
    inferencer = OTSegInferencer(config, weights, device="cpu")
    assert inferencer.model.decode_head.seen_bias == 0.25
    assert len(said) == 1 and " 0.25, calibrated" in said[0]
