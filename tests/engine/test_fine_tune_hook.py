"""Training that starts from a checkpoint of other classes over the same CLIP."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from mmengine.config import Config
from mmengine.runner import Runner

from mmseg_otseg.engine import ZeroShotRunner, read_checkpoint
from mmseg_otseg.engine.hooks import stages
from tests.helpers.folder_data import CLASSES, write_folders
from tests.helpers.small_configs import small

OURS = dict(classes=list(CLASSES), unseen=["tree", "road"])
THEIRS = dict(classes=["air", "tree", "car"], unseen=["air"])


@pytest.fixture
def said(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What the hook said."""
    lines: list[str] = []
    monkeypatch.setattr(stages, "print_log", lambda text, *_: lines.append(text))
    return lines


def config(folder: Path, split: dict, name: str, kind: str = "otseg", **changes) -> Config:
    cfg = small(f"own_data/{kind}_512.py", folder)
    cfg.merge_from_dict(dict(data_root=str(folder / name), model=dict(split=split)))
    cfg.merge_from_dict(changes)
    cfg.work_dir, cfg.experiment_name = str(folder / f"run_{name}"), f"{folder.name}_{name}"
    return cfg


def trained(folder: Path, kind: str = "otseg", **changes) -> Path:
    """A checkpoint of a run with other classes."""
    write_folders(folder / "theirs", classes=THEIRS["classes"])
    ZeroShotRunner.from_cfg(config(folder, THEIRS, "theirs", kind, **changes)).train()
    return folder / "run_theirs" / "iter_2.pth"


def start(folder: Path, checkpoint: Path, kind: str = "otseg", **changes) -> Runner:
    """A run of ours that loaded the checkpoint, just before its first iteration."""
    write_folders(folder / "ours")
    cfg = config(folder, OURS, "ours", kind, load_from=str(checkpoint), **changes)
    runner = ZeroShotRunner.from_cfg(cfg)
    runner.optim_wrapper = runner.build_optim_wrapper(runner.optim_wrapper)  # as in training
    runner.load_or_resume()
    return runner


def test_what_carries_over_and_what_does_not(tmp_path: Path, said: list[str]) -> None:
    file = trained(tmp_path)
    state = read_checkpoint(file)
    state["state_dict"]["decode_head.calibrated_seen_bias.ensemble"] = torch.tensor(0.3)
    torch.save(state, file)
    said.clear()
    runner = start(tmp_path, file)
    weights = {n: p for n, p in runner.model.named_parameters() if p.requires_grad}
    assert all(torch.equal(weight, state["state_dict"][name]) for name, weight in weights.items())
    total = sum(weight.numel() for weight in weights.values())
    told, warned = said
    assert f"{file}: {total:,} of {total:,} " in told
    assert "(air, tree, car)" in told and " tree, car." in told
    assert "bias" in told and "Optimizer" in told
    assert runner.model.decode_head.seen_bias == 0.1
    assert " tree, " in warned
    assert runner.model.neck.text.split.classes == CLASSES
    ZeroShotRunner.from_cfg(runner.cfg).train()
