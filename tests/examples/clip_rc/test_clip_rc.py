"""A method with tokens, queries and a loss of its own needs nothing but the public interface."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from mmengine.config import Config
from mmengine.runner import Runner

from mmseg_otseg.engine import ZeroShotRunner
from mmseg_otseg.export import export_folder
from mmseg_otseg.inference import OTSegRuntime
from mmseg_otseg.inference.loading import load_config, load_model
from tests.helpers.small_configs import small, train

FOLDER = Path(__file__).parent


@pytest.fixture
def config(data_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Config:
    monkeypatch.syspath_prepend(str(FOLDER))
    return small(Config.fromfile(FOLDER / "clip_rc_voc_512.py"), data_folder, tmp_path / "work")


def run(config: Config, **changes: Any) -> Runner:
    config = Config(config.to_dict())
    config.merge_from_dict({"experiment_name": f"run_{len(changes)}", **changes})
    return ZeroShotRunner.from_cfg(config)


def test_trains_resumes_and_is_tested_without_what_only_trains(
    config: Config, tmp_path: Path
) -> None:
    runner = train(Config(config.to_dict()))
    learned = {n for n, p in runner.model.named_parameters() if p.requires_grad}
    assert {"backbone.region_tokens", "neck.gather.weight"} < learned
    assert "train/decode.recovery.loss" in runner.message_hub.log_scalars

    resumed = run(config, resume=True, **{"train_cfg.max_iters": 4, "train_cfg.val_interval": 4})
    resumed.train()
    assert resumed.iter == 4
    checkpoint = torch.load(tmp_path / "work" / "iter_4.pth", weights_only=False)
    weights = checkpoint["state_dict"]
    lean = {name: value for name, value in weights.items() if ".recovery." not in name}
    assert len(lean) < len(weights)
    torch.save({"state_dict": lean}, tmp_path / "lean.pth")
    tested = run(config, load_from=str(tmp_path / "lean.pth"))
    assert tested.test() == run(config, load_from=str(tmp_path / "work" / "iter_4.pth")).test()
    del lean["backbone.region_tokens"]
    torch.save({"state_dict": lean}, tmp_path / "broken.pth")
    with pytest.raises(ValueError, match=r"backbone\.region_tokens"):
        run(config, load_from=str(tmp_path / "broken.pth")).test()


@pytest.mark.slow
def test_is_exported_without_what_only_trains(config: Config, tmp_path: Path) -> None:
    pytest.importorskip("onnxscript")
    state = run(config).model.state_dict()
    lean = {name: value for name, value in state.items() if ".recovery." not in name}
    torch.save({"state_dict": lean}, tmp_path / "lean.pth")
    model = load_model(load_config(config), tmp_path / "lean.pth").eval()
    differences = export_folder(model, config, tmp_path / "exported")
    assert max(differences.values()) < 1e-4
    assert len(OTSegRuntime(tmp_path / "exported").known.names) == 20
