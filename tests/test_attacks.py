"""A checkpoint runs no code, gives no config and deletes nothing, wherever it is read."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from mmengine.config import Config
from mmengine.runner import Runner
from mmseg.apis import MMSegInferencer, init_model

from mmseg_otseg.engine import read_checkpoint
from mmseg_otseg.inference import OTSegInferencer
from mmseg_otseg.models.clip import load_clip
from mmseg_otseg.models.text import PrecomputedPrompts
from tests.helpers.hostile import hostile_files
from tests.helpers.run_tools import forget_runs
from tests.helpers.tiny_clip import tiny_clip
from tests.helpers.tiny_run import CLASSES, tiny_config, write_images

SPLIT = dict(classes=CLASSES, unseen=["right"])


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with tiny.py and what it trained, and hostile files in ``hostile/``."""
    folder = tmp_path_factory.mktemp("attacks")
    write_images(folder)
    tiny_config(folder).dump(folder / "tiny.py")
    Runner.from_cfg(tiny_config(folder)).train()
    (folder / "hostile").mkdir()
    return folder


def run(folder: Path, file: str, resume: bool = True, **options: Any) -> Runner:
    forget_runs()
    work_dir = str(folder / "other")
    cfg = tiny_config(folder, work_dir=work_dir, load_from=file, resume=resume, **options)
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
def test_hostile_files_are_refused_by_name(door: str, folder: Path, tmp_path: Path) -> None:
    suffix, enter = DOORS[door]
    for kind, file in hostile_files(folder / "hostile", tmp_path / "executed").items():
        copy = shutil.copy(file, tmp_path / f"{kind}{suffix}")
        with pytest.raises(ValueError, match=rf"{kind}\{suffix}"):
            enter(folder, str(copy))
    assert not (tmp_path / "executed").exists()
    torch.load(folder / "hostile" / "weights.pth", weights_only=False)
    assert (tmp_path / "executed").exists()  # so it would have shown


def changed(folder: Path, change: Callable[[dict], Any]) -> str:
    """The path of a copy of the checkpoint of iteration 2 with something changed."""
    content = torch.load(folder / "run" / "iter_2.pth", weights_only=True)
    change(content)
    torch.save(content, folder / "changed.pth")
    return str(folder / "changed.pth")


def test_a_config_in_a_checkpoint_is_not_executed(folder: Path, tmp_path: Path) -> None:
    marker = tmp_path / "executed"
    code = f"open({str(marker)!r}, 'w').close()\nmodel = dict(type='Nothing')"

    def change(content: dict) -> None:
        content["meta"].update(config=code, cfg=code)
        content["message_hub"]["runtime_info"]["cfg"] = code

    file = changed(folder, change)
    assert run(folder, file).iter == 4
    with pytest.raises(ValueError, match="config"):  # mmengine would take that of the file
        MMSegInferencer(None, file, device="cpu")
    assert not marker.exists()
    Config.fromstring(code, ".py")
    assert marker.exists()


@pytest.mark.parametrize("hook", ["DurableCheckpointHook", "CheckpointHook"])
def test_no_file_elsewhere_is_deleted(hook: str, folder: Path, tmp_path: Path) -> None:
    victim = tmp_path / "victim.pth"
    victim.touch()

    def change(content: dict) -> None:
        entries = dict(best_ckpt=str(victim), best_score=-1.0, keep_ckpt_ids=[1, 2])
        content["message_hub"]["runtime_info"].update(entries, last_ckpt=str(victim))

    checkpoint = dict(type=hook, _delete_=True, by_epoch=False, interval=2, max_keep_ckpts=1)
    checkpoint.update(save_best="mIoU")
    run(folder, changed(folder, change), default_hooks=dict(checkpoint=checkpoint))
    assert victim.exists() and (folder / "other" / "iter_4.pth").exists()
