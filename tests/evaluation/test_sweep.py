"""What a sweep over seen-class biases refuses, and that it leaves the config alone."""

from __future__ import annotations

from pathlib import Path

import pytest

from mmseg_otseg.evaluation import sweep_seen_bias
from tests.helpers.shapes_run import tiny_config


def test_refuses_other_parts_and_other_heads(tmp_path: Path) -> None:
    cfg = tiny_config("training_free", tmp_path)
    with pytest.raises(ValueError, match="'train'"):
        sweep_seen_bias(cfg, None, subset="train")
    cfg.model.decode_head.type = "FCNHead"
    with pytest.raises(ValueError, match="FCNHead"):
        sweep_seen_bias(cfg, None)


def test_leaves_the_config_alone(tmp_path: Path) -> None:
    cfg = tiny_config("training_free", tmp_path)
    before = cfg.to_dict()
    cfg.experiment_name = before["experiment_name"] = "sweep"
    table = sweep_seen_bias(cfg, None, [0.2, 0.0], subset="test")
    assert [row["seen_bias"] for row in table] == [0.0, 0.2]
    assert cfg.to_dict() == before
