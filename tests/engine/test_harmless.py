"""What mmengine does on a checkpoint's word, at every door that it has."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from mmengine.logging import MessageHub
from mmengine.runner import CheckpointLoader, FlexibleRunner, Runner, load_checkpoint
from mmseg.apis import MMSegInferencer, init_model
from mmseg_otseg_cli.authors_to_mmseg import convert
from torch import nn

from mmseg_otseg.inference import OTSegInferencer
from tests.helpers.hostile import fence, hostile_files
from tests.helpers.run_tools import run_tool
from tests.helpers.tiny_run import tiny_config, train_tiny

IN_DOORS = ("exec", "exec_in_meta", "deflated", "claims", "doubled", "deep", "half", "header_shape")


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of tiny.py and of the run that it trained to iteration 4."""
    return train_tiny(tmp_path_factory.mktemp("trained"))


@pytest.fixture
def changed(trained: Path, tmp_path: Path) -> Callable[..., Path]:
    """Write the checkpoint of iteration 2 with other meta and runtime information."""

    def change(meta: dict[str, Any] | None = None, **info: Any) -> Path:
        checkpoint = torch.load(trained / "run" / "iter_2.pth", weights_only=False)
        checkpoint["meta"].update(meta or {})
        hub = checkpoint["message_hub"]
        hub["runtime_info"].update(info)
        hub["resumed_keys"].update(dict.fromkeys(info, True))
        torch.save(checkpoint, tmp_path / "changed.pth")
        return tmp_path / "changed.pth"

    return change


@pytest.fixture
def code(tmp_path: Path) -> str:
    """A config that leaves a mark where it is run."""
    return f"open({str(tmp_path / 'executed')!r}, 'w').close()\nmodel = dict(type='Executed')\n"


def resumed(trained: Path, file: Path, runner: type[Runner] = Runner, **changes: Any) -> Runner:
    cfg = tiny_config(trained, load_from=str(file), resume=True, **changes)
    cfg.work_dir = str(file.parent / "resumed")
    MessageHub._instance_dict.clear()
    return runner.from_cfg(cfg)


@pytest.mark.parametrize("kind", [Runner, FlexibleRunner])
def test_resuming_runs_no_config(
    kind: type, changed: Callable, code: str, trained: Path, tmp_path: Path
) -> None:
    file = changed(dict(config=code, cfg=code), cfg=code)
    runner = resumed(trained, file, kind)
    runner.train()
    assert runner.iter == 4
    assert not (tmp_path / "executed").exists()
    assert "Executed" not in runner.message_hub.get_info("cfg")


@pytest.mark.parametrize("inferencer", [OTSegInferencer, MMSegInferencer])
@pytest.mark.parametrize("config", [None, {}])
def test_no_model_is_built_from_a_config_in_a_checkpoint(
    inferencer: type, config: Any, changed: Callable, code: str, tmp_path: Path
) -> None:
    with pytest.raises((ValueError, TypeError), match="config"):
        inferencer(config, str(changed(dict(cfg=code, config=code), cfg=code)), device="cpu")
    torch.save(nn.Linear(1, 1).state_dict(), tmp_path / "changed.pth")
    with pytest.raises((ValueError, TypeError), match="config"):
        inferencer(config, str(tmp_path / "changed.pth"), device="cpu")
    assert not (tmp_path / "executed").exists()


@pytest.mark.parametrize("several", [False, True])
def test_nothing_is_deleted_on_a_checkpoints_word(
    several: bool, changed: Callable, trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """mmengine's own hook deletes the best checkpoint so far when there is a better one."""
    victims = [tmp_path / "folder" / "file", tmp_path / "best.pth"]
    victims[0].parent.mkdir()
    for victim in victims:
        victim.touch()
    monkeypatch.chdir(tmp_path)
    for word in (victims[0].parent, victims[1], "best.pth", "folder", "../" + tmp_path.name):
        info = {"best_ckpt": str(word), "best_score": -1.0, "last_ckpt": str(word)}
        save_best: Any = "mIoU"
        if several:
            info = {f"best_ckpt_{key}": str(word) for key in ("mIoU", "aAcc")}
            info |= {f"best_score_{key}": -1.0 for key in ("mIoU", "aAcc")}
            save_best = ["mIoU", "aAcc"]
        hook = dict(_delete_=True, type="CheckpointHook", by_epoch=False, interval=2)
        hook.update(save_best=save_best, rule="greater")
        resumed(trained, changed(**info), default_hooks=dict(checkpoint=hook)).train()
        assert all(victim.exists() for victim in victims)


def test_the_best_checkpoint_of_another_run_stays(trained: Path, tmp_path: Path) -> None:
    best = next((trained / "run").glob("best_*"))
    runner = resumed(trained, trained / "run" / "iter_2.pth")
    runner.message_hub.update_info("best_score", -1.0)
    runner.train()
    assert best.is_file()


@pytest.mark.parametrize(
    ("meta", "info"),
    [
        (dict(iter=-1), {}),
        (dict(iter=10**18), {}),
        (dict(epoch="1"), {}),
        (dict(seed="x" * 100), {}),
        (dict(seed=2**40), {}),
        (dict(dataset_meta=[1]), {}),
        (dict(dataset_meta=dict(classes=[1, 2])), {}),
        (dict(dataset_meta=dict(seen=["cat"])), {}),
        (dict(dataset_meta=dict(classes=["cat"], seen=[1], hide_as=255)), {}),
        (dict(dataset_meta=dict(seen=[0], hide_as=255)), {}),
        ({}, dict(keep_ckpt_ids=["../../best"])),
        ({}, dict(keep_ckpt_ids="iter")),
        ({}, dict(best_score="high")),
    ],
)
def test_what_has_no_meaning_is_refused(meta: dict, info: dict, changed: Callable) -> None:
    file = changed(meta, **info)
    with pytest.raises(ValueError, match=r"changed\.pth .*" + next(iter(meta | info))):
        CheckpointLoader.load_checkpoint(str(file))


@pytest.mark.parametrize(
    "content",
    [
        [1, 2],
        dict(state_dict=[1]),
        dict(state_dict=dict(weight="text")),
        dict(state_dict={1: torch.zeros(1)}),
        dict(state_dict={}, meta=3),
        dict(state_dict={}, message_hub=dict(runtime_info=[])),
        dict(state_dict={}, optimizer=[]),
        dict(state_dict={}, param_schedulers=3),
    ],
)
def test_files_of_another_form_are_refused(content: Any, tmp_path: Path) -> None:
    torch.save(content, tmp_path / "other.pth")
    with pytest.raises(ValueError, match=r"other\.pth"):
        load_checkpoint(nn.Linear(1, 1), str(tmp_path / "other.pth"))


def test_weights_alone_cannot_be_resumed_from(trained: Path, tmp_path: Path) -> None:
    torch.save(nn.Linear(1, 1).state_dict(), tmp_path / "weights.pth")
    with pytest.raises(ValueError, match=r"weights\.pth.*load_from"):
        resumed(trained, tmp_path / "weights.pth").train()


def test_weights_alone_serve_inference(trained: Path, tmp_path: Path) -> None:
    state = torch.load(trained / "run" / "iter_4.pth", weights_only=False)["state_dict"]
    torch.save(state, tmp_path / "weights.pth")
    model = init_model(tiny_config(trained), str(tmp_path / "weights.pth"), device="cpu")
    assert torch.equal(model.decode_head.conv_seg.bias, state["decode_head.conv_seg.bias"])


def test_what_was_loaded_can_be_saved_again(trained: Path, tmp_path: Path) -> None:
    loaded = CheckpointLoader.load_checkpoint(str(trained / "run" / "iter_4.pth"))
    torch.save(loaded, tmp_path / "again.pth")
    again = CheckpointLoader.load_checkpoint(str(tmp_path / "again.pth"))
    assert again["meta"] == loaded["meta"]
    torch.load(tmp_path / "again.pth", weights_only=False)  # without this package's classes


def doors(trained: Path, tmp_path: Path) -> dict[str, Callable[[str], Any]]:
    """Every way to give a checkpoint to the project."""
    config, run = trained / "tiny.py", tmp_path / "run"
    return {
        "train --resume": lambda file: run_tool(
            "train", config, "--work-dir", run, "--resume", file
        ),
        "load_from": lambda file: run_tool(
            "train", config, "--work-dir", run, "--cfg-options", f"load_from={file}"
        ),
        "test": lambda file: run_tool("test", config, file, "--work-dir", run),
        "OTSegInferencer": lambda file: OTSegInferencer(str(config), file, device="cpu"),
        "MMSegInferencer": lambda file: MMSegInferencer(str(config), file, device="cpu"),
        "init_model": lambda file: init_model(str(config), file, device="cpu"),
        "converter": lambda file: convert(file, run / "converted.pth"),
    }


def test_every_door_refuses_hostile_files_by_name(trained: Path, tmp_path: Path) -> None:
    marker = tmp_path / "executed"
    files = hostile_files(tmp_path, marker)
    before = {path: path.stat().st_mtime_ns for path in trained.rglob("*")}
    for name in IN_DOORS:
        for door in doors(trained, tmp_path).values():
            with fence(), pytest.raises(ValueError, match=re.escape(files[name].name)):
                door(str(files[name]))
    assert not marker.exists()
    assert {path: path.stat().st_mtime_ns for path in trained.rglob("*")} == before
