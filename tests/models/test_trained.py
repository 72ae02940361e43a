"""A checkpoint that lacks what the model trains must not be tested as if it had it."""

from __future__ import annotations

import copy
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from mmengine.config import Config
from mmengine.runner import load_checkpoint
from mmseg.apis import MMSegInferencer, init_model
from mmseg.registry import MODELS

from mmseg_otseg.engine import ZeroShotRunner
from mmseg_otseg.inference import OTSegInferencer
from mmseg_otseg.models.clip import load_clip
from tests.helpers.small_configs import CLIP, small


@pytest.fixture
def config(data_folder: Path, tmp_path: Path) -> Config:
    return small("otseg/voc_512.py", data_folder, tmp_path / "work")


def weights(config: Config) -> dict[str, torch.Tensor]:
    return MODELS.build(config.model).state_dict()


def saved(state: dict[str, Any], folder: Path) -> str:
    torch.save({"state_dict": state, "meta": {}}, folder / "given.pth")
    return str(folder / "given.pth")


def wrong_states(config: Config, folder: Path) -> dict[str, dict[str, torch.Tensor]]:
    """Checkpoints that leave trained weights out, by what they are."""
    good = weights(config)
    more_tokens = copy.deepcopy(config)
    more_tokens.model.backbone.visual_prompts.num_tokens = 3
    return {
        "ZegOT": weights(small("zegot/voc_512.py", folder)),
        "plain CLIP": dict(load_clip(**CLIP).state_dict()),
        "other tokens": weights(more_tokens),
        "one missing": {k: v for k, v in good.items() if not k.endswith("descriptor.linear.bias")},
    }


@pytest.mark.parametrize("kind", ["ZegOT", "plain CLIP", "other tokens"])
def test_random_weights_do_not_predict(kind: str, config: Config, tmp_path: Path) -> None:
    file = saved(wrong_states(config, tmp_path)[kind], tmp_path)
    doors = (
        lambda: init_model(config, file, device="cpu"),
        lambda: MMSegInferencer(config, file, device="cpu"),
        lambda: OTSegInferencer(config, file, device="cpu"),
        lambda: load_checkpoint(MODELS.build(config.model).eval(), file),
    )
    for door in doors:
        with pytest.raises(ValueError, match=r"given\.pth .*random"):
            door()


def test_weights_that_are_no_numbers(config: Config, tmp_path: Path) -> None:
    state = weights(config)
    state["decode_head.decoder.last.query.weight"].fill_(torch.nan)
    with pytest.raises(ValueError, match=r"given\.pth .*NaN.*last\.query\.weight"):
        load_checkpoint(MODELS.build(config.model), saved(state, tmp_path))


def test_test_and_training_of_the_runner(config: Config, tmp_path: Path) -> None:
    state = wrong_states(config, tmp_path)["one missing"]
    config.load_from = saved(state, tmp_path)
    with pytest.raises(ValueError, match=r"given\.pth .*descriptor\.linear\.bias"):
        ZeroShotRunner.from_cfg(copy.deepcopy(config)).test()
    config.experiment_name = "training"
    ZeroShotRunner.from_cfg(config).train()  # with a validation
    log = max(tmp_path.glob("work/*/*.log")).read_text()
    assert re.search(r"WARNING.*given\.pth .*descriptor\.linear\.bias", log)
