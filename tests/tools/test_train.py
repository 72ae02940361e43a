from __future__ import annotations

from pathlib import Path

import pytest
import torch

from mmseg_otseg.datasets.shapes import export_voc
from mmseg_otseg.engine import read_checkpoint
from tests.helpers.paths import ROOT
from tests.helpers.run_tools import last_metrics, run_tool
from tests.helpers.tiny_run import tiny_config, write_images


def test_resume_goes_on_from_the_latest_checkpoint(tmp_path: Path) -> None:
    write_images(tmp_path)
    config, run = tmp_path / "tiny.py", tmp_path / "run"
    tiny_config(tmp_path).dump(config)
    run_tool("train", config, "--resume", "--cfg-options", "train_cfg.max_iters=2")  # none yet
    run.rename(tmp_path / "moved")
    run_tool("train", config, "--work-dir", tmp_path / "moved", "--resume")
    assert read_checkpoint(tmp_path / "moved" / "iter_4.pth")["meta"]["iter"] == 4
    log = max((tmp_path / "moved").glob("*/*.log")).read_text()
    assert "resumed epoch: 0, iter: 2" in log

    run_tool("train", config, "--resume", tmp_path / "moved" / "iter_2.pth")
    assert (run / "iter_4.pth").is_file() and not (run / "iter_2.pth").exists()
    with pytest.raises(FileNotFoundError, match=r"none\.pth"):
        run_tool("train", config, "--resume", tmp_path / "none.pth")


def test_the_screen_shows_what_concerns_the_user(
    tmp_path: Path, capfd: pytest.CaptureFixture
) -> None:
    """At most 60 lines for four iterations and a validation; the file has the rest."""
    write_images(tmp_path)
    cfg = tiny_config(tmp_path, train_cfg=dict(max_iters=4, val_interval=4))
    cfg.dump(tmp_path / "tiny.py")
    capfd.readouterr()
    run_tool("train", tmp_path / "tiny.py")
    out, err = capfd.readouterr()
    lines = [*out.splitlines(), *err.splitlines()]
    assert len(lines) <= 60, out + err
    for words in ("hIoU", "loss", "per class results", "tmp", "config, environment"):
        assert any(words in line for line in lines), words
    log = next((tmp_path / "run").glob("*/*.log")).read_text()
    for words in ("System environment", "visual_prompts=dict(", "Hooks will be executed", "hIoU"):
        assert words in log
    for words in ("System environment", "visual_prompts=dict(", "paramwise", "deprecated"):
        assert words not in out + err


def test_amp_on_a_cpu_trains_under_autocast(tmp_path: Path) -> None:
    """As far as float32, but for what rounding does; and it resumes to the same weights."""
    write_images(tmp_path)
    tiny_config(tmp_path, dropout=False).dump(tmp_path / "otseg.py")
    runs = {name: tmp_path / name for name in ("exact", "amp", "resumed")}
    run_tool("train", tmp_path / "otseg.py", "--work-dir", runs["exact"])
    run_tool("train", tmp_path / "otseg.py", "--work-dir", runs["amp"], "--amp")
    resume = ("--amp", "--resume", runs["amp"] / "iter_2.pth")
    run_tool("train", tmp_path / "otseg.py", "--work-dir", runs["resumed"], *resume)
    exact, amp, resumed = (
        read_checkpoint(run / "iter_4.pth")["state_dict"] for run in runs.values()
    )
    torch.testing.assert_close(amp, resumed, rtol=0, atol=0)
    torch.testing.assert_close(amp, exact, rtol=0, atol=2e-3)
    assert any(not torch.equal(amp[name], weight) for name, weight in exact.items())


def test_the_config_of_the_quickstart_trains_on_generated_data(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    export_voc("data", train=3, aug=2, val=8)  # enough to show unseen classes
    options = ["train_cfg.max_iters=2", "train_cfg.val_interval=2"]
    for loader in ("train_dataloader", "val_dataloader"):
        options += [f"{loader}.num_workers=0", f"{loader}.persistent_workers=False"]
    config = ROOT / "configs" / "quickstart" / "voc_layout.py"
    run_tool("train", config, "--work-dir", tmp_path / "run", "--cfg-options", *options)
    assert (tmp_path / "run" / "iter_2.pth").is_file()
    assert {"mIoU_S", "mIoU_U", "hIoU"} <= set(last_metrics(tmp_path / "run"))
