"""A sweep over seen-class biases, and the bias it leaves in a checkpoint."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from mmseg_otseg.engine import ZeroShotRunner
from mmseg_otseg.evaluation import store_seen_bias, sweep_seen_bias
from tests.helpers.shapes_run import tiny_config


def test_refuses_data_without_labels_and_other_heads(tmp_path: Path) -> None:
    cfg = tiny_config("training_free", tmp_path)
    cfg.val_evaluator.unseen_labeled = False
    with pytest.raises(ValueError, match="unseen_labeled=False"):
        sweep_seen_bias(cfg, None)
    cfg.model.decode_head.type = "FCNHead"
    with pytest.raises(ValueError, match="FCNHead"):
        sweep_seen_bias(cfg, None)


def test_a_test_on_the_images_that_chose_the_bias_says_so(
    tmp_path: Path, capfd: pytest.CaptureFixture
) -> None:
    cfg, weights = tiny_config("otseg_plus", tmp_path), tmp_path / "weights.pth"
    runner = ZeroShotRunner.from_cfg(cfg)
    torch.save({"state_dict": runner.model.state_dict()}, weights)
    store_seen_bias(cfg, weights, 0.02, weights)
    for subset, said in (("test", False), ("val", True)):
        cfg = tiny_config("otseg_plus", tmp_path / subset, load_from=str(weights))
        cfg.experiment_name = f"tested on {subset}"
        cfg.test_dataloader.dataset.dataset.subset = subset
        capfd.readouterr()
        ZeroShotRunner.from_cfg(cfg).test()
        assert ("calibrated on these 6 images" in "".join(capfd.readouterr())) == said
