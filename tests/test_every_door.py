"""Every hostile file through every door of the project; prints a table of what it took."""

from __future__ import annotations

import shutil
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from mmengine.config import Config
from mmseg.apis import MMSegInferencer, init_model
from mmseg.registry import DATASETS
from mmseg_otseg_cli.errors import message_for_user
from prettytable import PrettyTable

from mmseg_otseg.checks.reading import _Reader
from mmseg_otseg.inference import OTSegInferencer
from mmseg_otseg.models.clip import load_clip
from mmseg_otseg.models.text import PrecomputedPrompts
from tests.helpers.hostile import hostile_files
from tests.helpers.hostile_media import Place, hostile_media
from tests.helpers.otseg_run import otseg_config
from tests.helpers.run_tools import run_tool
from tests.helpers.tiny_clip import tiny_clip
from tests.helpers.tiny_run import CLASSES, write_images

SECONDS, GIGABYTES = 10, 2
Door = tuple[str, Callable[[str], Any]]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Data, and otseg.py to train on them."""
    folder = tmp_path_factory.mktemp("doors")
    write_images(folder)
    otseg_config(folder).dump(folder / "otseg.py")
    return folder


@pytest.fixture(scope="module")
def kinds(folder: Path) -> dict[str, Place]:
    """What puts each kind of file under a given path."""
    (folder / "hostile").mkdir()
    files = hostile_files(folder / "hostile", folder / "executed")
    copies: dict[str, Place] = {}
    for name, file in files.items():
        copies[name] = partial(shutil.copy, file)
    return {**copies, **hostile_media(folder / "executed")}


def doors(folder: Path) -> dict[str, Door]:
    """Every way in, with the suffix that it expects."""
    config, out = folder / "otseg.py", folder / "out"
    options = ("--work-dir", folder / "run")
    split = dict(classes=CLASSES, unseen=["right"])
    inferencer = OTSegInferencer(str(config), device="cpu")
    dataset = DATASETS.build(Config.fromfile(config).train_dataloader.dataset)
    paths = dataset.get_data_info(0)

    (leaf,) = dataset.leaves

    def sample(key: str, file: str) -> None:
        leaf.pipeline(dict(paths, **{key: file}))

    def data_check(key: str, file: str) -> str:
        leaf.get_data_info = lambda index: dict(paths, **{key: file})
        try:
            return _Reader(dataset, seed=0)[0].problem
        finally:
            del leaf.get_data_info

    checkpoints: dict[str, Callable[[str], Any]] = {
        "train --resume": lambda file: run_tool("train", config, *options, "--resume", file),
        "load_from": lambda file: run_tool(
            "train", config, *options, "--cfg-options", f"load_from={file}"
        ),
        "test": lambda file: run_tool("test", config, file, *options),
        "segment": lambda file: run_tool(
            "segment", folder / "images/val", "--model", config, "--weights", file, "--out", out
        ),
        "export": lambda file: run_tool("export", config, file, out),
        "calibrate": lambda file: run_tool("analysis/calibrate_seen_bias", config, file),
        "converter": lambda file: run_tool(
            "model_converters/authors_to_mmseg", file, folder / "converted.pth"
        ),
        "OTSegInferencer": lambda file: OTSegInferencer(str(config), file, device="cpu"),
        "MMSegInferencer": lambda file: MMSegInferencer(str(config), file, device="cpu"),
        "init_model": lambda file: init_model(str(config), file, device="cpu"),
    }
    others: dict[str, Door] = {
        "CLIP .pt": (".pt", lambda file: load_clip(tiny_clip(), file)),
        "CLIP .bin": (".bin", lambda file: load_clip(tiny_clip(), file)),
        "CLIP .safetensors": (".safetensors", lambda file: load_clip(tiny_clip(), file)),
        "text embeddings": (".npy", lambda file: PrecomputedPrompts(file, split)),
        "label": (".png", lambda file: sample("seg_map_path", file)),
        "training image": (".png", lambda file: sample("img_path", file)),
        "check_data, label": (".png", lambda file: data_check("seg_map_path", file)),
        "check_data, image": (".png", lambda file: data_check("img_path", file)),
        "image": (".jpg", lambda file: list(inferencer.segment([file]))),
    }
    return {**{name: (".pth", call) for name, call in checkpoints.items()}, **others}


@contextmanager
def watched() -> Iterator[dict[str, float]]:
    """Inside, hanging is an error; afterwards, seconds and gigabytes that it took."""

    def hangs(*_: object) -> None:
        raise AssertionError(f"more than {2 * SECONDS} seconds")

    took: dict[str, float] = {}
    Path("/proc/self/clear_refs").write_text("5")  # the peak starts from here
    before, start = _memory("VmRSS"), time.monotonic()
    previous = signal.signal(signal.SIGALRM, hangs)
    signal.alarm(2 * SECONDS)
    try:
        yield took
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, previous)
        took["seconds"] = time.monotonic() - start
        took["gigabytes"] = (_memory("VmHWM") - before) / 2**20


def _memory(name: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(f"{name}:"))


def outside(folder: Path) -> dict[str, int]:
    """What the folder holds besides the folders that are written to."""
    written = [folder / name for name in ("run", "out", "given")]
    return {
        str(path): path.lstat().st_mtime_ns
        for path in folder.rglob("*")
        if not path.is_dir() and not any(path.is_relative_to(other) for other in written)
    }


def problem(door: Callable[[str], Any], file: Path, took: dict[str, float]) -> str | None:
    """What is wrong with how a door receives a file; None if it is refused as it should be."""
    try:
        with watched() as measured:
            message = door(str(file))
        message = message if isinstance(message, str) and message else None
    except Exception as error:
        message = message_for_user(error)
        if message is None:
            return f"{type(error).__name__} with a traceback: {str(error)[:200]}"
    if message is None:
        return "accepted"
    if file.name not in message:
        return f"does not name the file: {message[:200]}"
    if len(message) > 1500 or "\n\n" in message:
        return f"too long: {message[:200]}"
    for name, limit in (("seconds", SECONDS), ("gigabytes", GIGABYTES)):
        took[name] = max(took.get(name, 0.0), measured[name])
        if measured[name] > limit:
            return f"{measured[name]:.1f} {name}"
    return None


@pytest.mark.slow
def test_every_file_through_every_door(folder: Path, kinds: dict[str, Place]) -> None:
    table = PrettyTable(["door", "files", "refused", "most seconds", "most GiB"])
    given = folder / "given"
    given.mkdir()
    before = outside(folder)
    found: list[str] = []
    for door, (suffix, call) in doors(folder).items():
        took: dict[str, float] = {}
        wrong = {}
        for kind, place in kinds.items():
            file = given / f"{kind}{suffix}"
            place(file)
            reason = problem(call, file, took)
            if reason is not None:
                wrong[kind] = reason
            if file.is_symlink() or file.is_file() or file.is_fifo():
                file.unlink()
            elif file.is_dir():
                shutil.rmtree(file)
        found += [f"{door}, {kind}: {reason}" for kind, reason in wrong.items()]
        took.setdefault("seconds", 0.0)
        refused = len(kinds) - len(wrong)
        table.add_row(
            [door, len(kinds), refused, f"{took['seconds']:.1f}", f"{took.get('gigabytes', 0):.2f}"]
        )
    print(f"\n{table}")
    print("\n".join(found))
    assert not (folder / "executed").exists()
    assert outside(folder) == before
    assert not found
