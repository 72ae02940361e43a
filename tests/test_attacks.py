"""A checkpoint runs no code, gives no config and deletes nothing, wherever it is read."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from mmengine.config import Config
from mmengine.runner import CheckpointLoader, Runner, load_checkpoint
from mmengine.runner import checkpoint as mmengine_checkpoint
from mmseg.apis import MMSegInferencer, init_model
from torch import nn

from mmseg_otseg.engine import read_checkpoint
from mmseg_otseg.inference import OTSegInferencer
from mmseg_otseg.models.clip import load_clip
from mmseg_otseg.models.text import PrecomputedPrompts
from tests.helpers.hostile import hostile_files
from tests.helpers.run_tools import forget_runs
from tests.helpers.tiny_clip import tiny_clip
from tests.helpers.tiny_run import CLASSES

SPLIT = dict(classes=CLASSES, unseen=["right"])


def run(folder: Path, file: str, resume: bool = True, **options: Any) -> Runner:
    """Start from a file; what the run writes is in ``run`` beside it."""
    forget_runs()
    cfg = Config.fromfile(folder / "tiny.py")
    work_dir = str(Path(file).parent / "run")
    cfg.merge_from_dict(dict(work_dir=work_dir, load_from=file, resume=resume, **options))
    runner = Runner.from_cfg(cfg)
    runner.train()
    return runner


DOORS: dict[str, tuple[str, Callable[[Path, str], Any]]] = {
    "read_checkpoint": (".pth", lambda folder, file: read_checkpoint(file)),
    "resume": (".pth", run),
    "load_from": (".pth", lambda folder, file: run(folder, file, resume=False)),
    "init_model": (".pth", lambda folder, file: init_model(str(folder / "tiny.py"), file, "cpu")),
    "OTSegInferencer": (".pth", lambda folder, file: OTSegInferencer(folder / "tiny.py", file)),
    "CLIP .pt": (".pt", lambda folder, file: load_clip(tiny_clip(), file)),
    "CLIP .safetensors": (".safetensors", lambda folder, file: load_clip(tiny_clip(), file)),
    "text embeddings": (".npy", lambda folder, file: PrecomputedPrompts(file, SPLIT)),
}


@pytest.mark.parametrize("door", DOORS)
def test_hostile_files_are_refused_by_name(door: str, trained_folder: Path, tmp_path: Path) -> None:
    suffix, enter = DOORS[door]
    for kind, file in hostile_files(tmp_path, tmp_path / "executed").items():
        renamed = file.replace(file.with_suffix(suffix))
        with pytest.raises(ValueError, match=rf"{kind}\{suffix}"):
            enter(trained_folder, str(renamed))
    assert not (tmp_path / "executed").exists()
    with (tmp_path / f"weights{suffix}").open("rb") as content:
        torch.load(content, weights_only=False)
    assert (tmp_path / "executed").exists()  # so it would have shown


@pytest.fixture
def resume(trained_folder: Path, tmp_path: Path) -> Callable[..., Runner]:
    """Go on from the checkpoint of iteration 2 with something changed in it."""

    def resume(change: Callable[[dict], Any], **options: Any) -> Runner:
        content = torch.load(trained_folder / "run" / "iter_2.pth", weights_only=True)
        change(content)
        torch.save(content, tmp_path / "changed.pth")
        return run(trained_folder, str(tmp_path / "changed.pth"), **options)

    return resume


def test_a_config_in_a_checkpoint_is_not_executed(resume: Callable, tmp_path: Path) -> None:
    marker = tmp_path / "executed"
    code = f"open({str(marker)!r}, 'w').close()\nmodel = dict(type='Nothing')"

    def change(content: dict) -> None:
        content["meta"].update(config=code, cfg=code)
        content["message_hub"]["runtime_info"]["cfg"] = code

    assert resume(change).iter == 4
    with pytest.raises(ValueError, match="config"):  # mmengine would take that of the file
        MMSegInferencer(None, str(tmp_path / "changed.pth"), device="cpu")
    assert not marker.exists()
    Config.fromstring(code, ".py")
    assert marker.exists()


@pytest.mark.parametrize("hook", ["DurableCheckpointHook", "CheckpointHook"])
def test_no_file_elsewhere_is_deleted(hook: str, resume: Callable, tmp_path: Path) -> None:
    victim = tmp_path / "victim.pth"
    victim.touch()

    def change(content: dict) -> None:
        entries = dict(best_ckpt=str(victim), best_score=-1.0, keep_ckpt_ids=[1, 2])
        content["message_hub"]["runtime_info"].update(entries, last_ckpt=str(victim))

    checkpoint = dict(type=hook, _delete_=True, by_epoch=False, interval=2, max_keep_ckpts=1)
    checkpoint.update(save_best="mIoU")
    resume(change, default_hooks=dict(checkpoint=checkpoint))
    assert victim.exists() and (tmp_path / "run" / "iter_4.pth").exists()


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
