from __future__ import annotations

import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from mmengine.config import Config, ConfigDict
from mmengine.logging import HistoryBuffer

from mmseg_otseg.engine import ZeroShotRunner, read_checkpoint
from mmseg_otseg.errors import UserError
from mmseg_otseg.models import load_clip
from tests.helpers.hostile import Call


def test_any_tool_can_read_what_a_run_writes(trained_folder: Path) -> None:
    file = next((trained_folder / "run").glob("best_hIoU_iter_*.pth"))
    plainly, mine = torch.load(file, weights_only=True), read_checkpoint(file)
    assert plainly.keys() == mine.keys()
    assert plainly["meta"] == mine["meta"] and plainly["message_hub"] == mine["message_hub"]
    assert vars(plainly["state_dict"]) == vars(mine["state_dict"])  # the modules' versions
    torch.testing.assert_close(plainly["state_dict"], mine["state_dict"], rtol=0, atol=0)


@pytest.mark.parametrize("module", ["numpy.core.multiarray", "numpy._core.multiarray"])
def test_a_checkpoint_of_mmengine_or_of_0_2_resumes(
    module: str, trained_folder: Path, tmp_path: Path
) -> None:
    """It holds the objects of mmengine's message hub, and arrays and scalars of either NumPy."""
    content = torch.load(trained_folder / "run" / "iter_2.pth", weights_only=True)
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
    cfg = Config.fromfile(trained_folder / "tiny.py")
    cfg.train_cfg.max_iters = 2
    cfg.update(work_dir=str(tmp_path), load_from=str(tmp_path / "f"), resume=True)
    runner = ZeroShotRunner.from_cfg(cfg)
    runner.train()
    assert runner.iter == 2
    resumed = runner.message_hub.runtime_info
    assert resumed["best_score"] == 0.5 and type(resumed["best_score"]) is float
    assert resumed["best_file"] == "best.pth" and resumed["keep_ckpt_ids"] == [2]
    assert resumed["palette"] == np.eye(3).tolist()
    assert not {"best_ckpt", "validated_iter"} & set(resumed)


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "empty"),
        (b"loss 0.3\nloss 0.2\n", "text"),
        (b"\n<!doctype HTML>\n<html>404</html>", "web page"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "git lfs pull"),
        (b"PK\x03\x04" + bytes(60), "end is missing"),
        (b"PK\x05\x06" + bytes(18), "ZIP archive"),
        (bytes(range(256)), "damaged|header"),
    ],
)
def test_what_came_instead_of_weights_is_said(
    content: bytes, words: str, suffix: str, clip_config: dict, tmp_path: Path
) -> None:
    file = tmp_path / f"w{suffix}"
    file.write_bytes(content)
    for read in (read_checkpoint, lambda file: load_clip(clip_config, str(file))):
        with pytest.raises(UserError, match=rf"w\{suffix} .*{words}|w\{suffix}: .*{words}"):
            read(file)
