from __future__ import annotations

from pathlib import Path

import pytest
import torch
from mmengine.config import Config
from mmseg_otseg_cli.authors_to_mmseg import convert

from mmseg_otseg.evaluation import store_seen_bias
from mmseg_otseg.inference import OTSegInferencer
from mmseg_otseg.models.decode_heads import seen_bias
from tests.helpers.small_configs import write_data


def test_the_inferencer_uses_the_bias_of_the_checkpoint(
    config: Config, weights: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_data(tmp_path)
    said: list[str] = []
    monkeypatch.setattr(seen_bias, "print_log", lambda text, logger: said.append(text))
    assert OTSegInferencer(config, weights, device="cpu").model.decode_head.seen_bias == 0.1
    store_seen_bias(config, weights, 0.25, weights)
    assert torch.load(weights)["meta"]  # what else the file holds is still there
    inferencer = OTSegInferencer(config, weights, device="cpu")
    assert inferencer.model.decode_head.seen_bias == 0.25
    assert len(said) == 1 and " 0.25, calibrated" in said[0]


def test_a_checkpoint_is_never_written_under_another_formats_name(
    config: Config, weights: str
) -> None:
    target = f"{weights}.safetensors"
    with pytest.raises(ValueError, match="safetensors"):
        store_seen_bias(config, weights, 0.25, target)
    with pytest.raises(ValueError, match="safetensors"):
        convert(weights, target)
    assert not Path(target).exists()
