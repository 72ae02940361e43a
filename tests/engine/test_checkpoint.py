from __future__ import annotations

import re
import shutil
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from mmengine.config import ConfigDict
from mmengine.logging import HistoryBuffer
from mmengine.runner import CheckpointLoader, load_checkpoint
from mmengine.runner import checkpoint as mmengine_checkpoint
from torch import nn

from mmseg_otseg.engine import ZeroShotRunner, read_checkpoint
from tests.helpers.hostile import Call, hostile_files
from tests.helpers.tiny_run import tiny_config, write_images


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a finished run, with checkpoints at 2 and 4 iterations."""
    folder = tmp_path_factory.mktemp("trained")
    write_images(folder)
    ZeroShotRunner.from_cfg(tiny_config(folder)).train()
    return folder / "run"


def test_any_tool_can_read_what_a_run_writes(trained: Path) -> None:
    file = next(trained.glob("best_hIoU_iter_*.pth"))
    plainly, mine = torch.load(file, weights_only=True), read_checkpoint(file)
    assert plainly.keys() == mine.keys()
    assert plainly["meta"] == mine["meta"] and plainly["message_hub"] == mine["message_hub"]
    assert vars(plainly["state_dict"]) == vars(mine["state_dict"])  # the modules' versions
    torch.testing.assert_close(plainly["state_dict"], mine["state_dict"], rtol=0, atol=0)


@pytest.mark.parametrize("module", ["numpy.core.multiarray", "numpy._core.multiarray"])
def test_a_checkpoint_of_mmengine_or_of_0_2_resumes(
    module: str, trained: Path, tmp_path: Path
) -> None:
    """It holds the objects of mmengine's message hub, and arrays and scalars of either NumPy."""
    content = torch.load(trained / "iter_2.pth", weights_only=True)
    history = HistoryBuffer([1.0, 2.0], [1, 1])
    history.__dict__["_statistics_methods"] = dict(mean=Call(getattr, HistoryBuffer, "mean"))
    content["message_hub"]["log_scalars"] = {"train/loss": history}
    info = dict(best_score=np.float32(0.5), best_ckpt="/gone/best.pth", validated_iter=2)
    info.update(keep_ckpt_ids=[np.int64(2)], palette=np.eye(3, dtype=np.uint8, order="F"))
    content["message_hub"]["runtime_info"].update(info)
    content["meta"]["dataset_meta"] = ConfigDict(classes=("a", "b"))
    torch.save(content, tmp_path / "now.pth")
    with zipfile.ZipFile(tmp_path / "now.pth") as now, zipfile.ZipFile(tmp_path / "f", "w") as file:
        for name in now.namelist():
            data = now.read(name)
            for other in (b"numpy.core.multiarray", b"numpy._core.multiarray"):
                data = data.replace(other, module.encode())
            file.writestr(name, data)
    assert read_checkpoint(tmp_path / "f")["meta"]["dataset_meta"] == dict(classes=("a", "b"))
    options = dict(work_dir=str(tmp_path), load_from=str(tmp_path / "f"), resume=True)
    cfg = tiny_config(trained.parent, **options)
    cfg.train_cfg.max_iters = 2
    runner = ZeroShotRunner.from_cfg(cfg)
    runner.train()
    assert runner.iter == 2
    resumed = runner.message_hub.runtime_info
    assert resumed["best_score"] == 0.5 and type(resumed["best_score"]) is float
    assert resumed["best_file"] == "best.pth" and resumed["keep_ckpt_ids"] == [2]
    assert resumed["palette"] == np.eye(3).tolist()
    assert not {"best_ckpt", "validated_iter"} & set(resumed)


def test_every_source_of_mmengine_is_read_safely(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    evil = hostile_files(tmp_path, tmp_path / "executed")["weights"]
    monkeypatch.setattr(torch.hub, "_hub_dir", str(tmp_path / "hub"))
    monkeypatch.setattr(torch.hub, "download_url_to_file", lambda _, to: shutil.copy(evil, to))
    url = f"https://nowhere/{evil.name}"
    for name in ("external", "torchvision"):
        monkeypatch.setattr(mmengine_checkpoint, f"get_{name}_models", lambda: dict(model=url))
    for source in [url, "torchvision://model", "open-mmlab://model"]:
        with pytest.raises(ValueError, match=r"refused.*exec"):
            load_checkpoint(nn.Linear(1, 1), source)
    for source in ["s3://a/b.pth", "open-mmlab://nothing"]:
        with pytest.raises(ValueError, match=re.escape(source)):
            CheckpointLoader.load_checkpoint(source)
    assert not (tmp_path / "executed").exists()
