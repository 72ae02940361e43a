"""Runs over towers in half precision go on where they stopped, as those in float32 do."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
import torch
from mmengine.config import Config

from mmseg_otseg.engine import read_checkpoint
from mmseg_otseg.models.clip import PRECISIONS
from tests.helpers.otseg_run import otseg_config
from tests.helpers.run_tools import run_tool
from tests.helpers.tiny_clip import tiny_clip
from tests.helpers.tiny_run import CLASSES, write_images

ZEGOT = dict(
    backbone=dict(visual_prompts=None, out_indices=(-2, -1), project=False),
    neck=dict(
        _delete_=True,
        type="DLFANeck",
        adapters=2,
        identity_init=True,
        text=dict(
            type="LearnablePrompts",
            num_prompts=2,
            num_tokens=2,
            split=dict(classes=CLASSES, unseen=["right"]),
        ),
    ),
    decode_head=dict(num_levels=2, decoder_layers=0, predict_from="score"),
)


def config(folder: Path, method: str, precision: str) -> Config:
    cfg = otseg_config(folder)
    if method == "zegot":
        cfg.merge_from_dict(dict(model=copy.deepcopy(ZEGOT)))
    for part in (cfg.model.backbone, cfg.model.neck):
        part.clip = dict(model=tiny_clip(), precision=precision)
    return cfg


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
@pytest.mark.parametrize("method", ["otseg", "zegot"])
def test_a_resumed_run_has_the_weights_of_an_unbroken_one(
    method: str, precision: str, tmp_path: Path
) -> None:
    write_images(tmp_path)
    file, whole, resumed = (tmp_path / name for name in ("half.py", "whole", "resumed"))
    config(tmp_path, method, precision).dump(file)
    run_tool("train", file, "--work-dir", whole)
    run_tool("train", file, "--work-dir", resumed, "--resume", whole / "iter_2.pth")
    start, first, second = (
        read_checkpoint(checkpoint)["state_dict"]
        for checkpoint in (whole / "iter_2.pth", whole / "iter_4.pth", resumed / "iter_4.pth")
    )
    torch.testing.assert_close(first, second, rtol=0, atol=0)
    assert any(not torch.equal(start[name], weight) for name, weight in first.items())
    assert all(value.dtype != PRECISIONS[precision] for value in first.values())
