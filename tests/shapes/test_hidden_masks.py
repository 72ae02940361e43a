"""What the masks of unseen classes say never reaches the weights."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from mmseg_otseg.datasets.shapes import SHAPES_CLASSES, SHAPES_UNSEEN_INDICES, Scene
from mmseg_otseg.datasets.shapes import dataset as shapes_dataset
from mmseg_otseg.engine import ZeroShotRunner
from tests.helpers.shapes_run import tiny_config

SEEN_INDICES = tuple(set(range(len(SHAPES_CLASSES))) - set(SHAPES_UNSEEN_INDICES))


def trained(work_dir: Path, setting: str) -> dict[str, torch.Tensor]:
    """Weights after four iterations of the recipe of the checkpoint that is shipped."""
    cfg = tiny_config("checkpoint/otseg_plus", work_dir)
    cfg.train_dataloader.dataset.setting = setting
    cfg.experiment_name = f"{work_dir.name}_{setting}"
    if setting == "transductive":
        cfg.default_hooks.self_training = dict(type="SelfTrainingHook", begin=2)
    for name in ("cfg", "dataloader", "evaluator"):
        cfg[f"val_{name}"] = cfg[f"test_{name}"] = None
    runner = ZeroShotRunner.from_cfg(cfg)
    runner.train()
    return runner.model.state_dict()


def scramble(monkeypatch: pytest.MonkeyPatch, classes: tuple[int, ...]) -> list[int]:
    """Give every pixel of some classes one of them at random; returns how many pixels changed."""
    render = shapes_dataset.render_scene
    rng = np.random.default_rng(0)
    changed = []

    def scrambled(*args: Any, **kwargs: Any) -> Scene:
        scene = render(*args, **kwargs)
        noise = rng.choice(classes, scene.labels.shape).astype(scene.labels.dtype)
        labels = np.where(np.isin(scene.labels, classes), noise, scene.labels)
        changed.append(int((labels != scene.labels).sum()))
        return replace(scene, labels=labels)

    monkeypatch.setattr(shapes_dataset, "render_scene", scrambled)
    return changed


@pytest.mark.parametrize("setting", ["inductive", "transductive"])
def test_scrambled_unseen_masks_give_the_same_weights(
    setting: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    honest = trained(tmp_path / "honest", setting)
    for classes, same in ((SHAPES_UNSEEN_INDICES, True), (SEEN_INDICES, False)):
        with monkeypatch.context() as patch:
            changed = scramble(patch, classes)
            scrambled = trained(tmp_path / f"scrambled_{same}", setting)
        assert sum(changed) > 1000 and honest.keys() == scrambled.keys()
        assert all(torch.equal(honest[name], scrambled[name]) for name in honest) == same
