from __future__ import annotations

import functools
import http.server
import re
import threading
import zipfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from mmengine.logging import HistoryBuffer
from mmengine.runner import CheckpointLoader, load_checkpoint
from mmengine.runner import checkpoint as mmengine_checkpoint
from mmseg.apis import init_model
from safetensors.torch import save_file
from torch import nn

from mmseg_otseg.engine import ZeroShotRunner, checkpoint_sources, read_checkpoint
from tests.helpers.tiny_run import tiny_config, write_images


class Evil:
    """Writes a file when it is unpickled."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple:
        return exec, (f"open({str(self.marker)!r}, 'w').close()",)


@pytest.fixture
def evil(tmp_path: Path) -> Iterator[Path]:
    """A checkpoint with code in it; afterwards it must not have run."""
    marker = tmp_path / "executed"
    file = tmp_path / "evil.pth"
    torch.save(dict(state_dict=dict(weight=torch.zeros(1)), extra=Evil(marker)), file)
    yield file
    assert not marker.exists()
    torch.load(file, weights_only=False)
    assert marker.exists()  # so it would have shown


@pytest.fixture
def served(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The URL under which the files of tmp_path can be downloaded."""
    monkeypatch.setenv("no_proxy", "*")
    monkeypatch.setattr(torch.hub, "_hub_dir", str(tmp_path / "hub"))
    handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=tmp_path)
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a finished run, with checkpoints at 2 and 4 iterations."""
    folder = tmp_path_factory.mktemp("trained")
    write_images(folder)
    ZeroShotRunner.from_cfg(tiny_config(folder)).train()
    return folder / "run"


def test_code_in_a_checkpoint_is_refused_and_named(evil: Path) -> None:
    with pytest.raises(ValueError, match=r"refused.*'exec'"):
        read_checkpoint(evil)


def test_every_loader_of_mmengine_refuses_code(
    evil: Path, served: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = f"{served}/{evil.name}"
    monkeypatch.setattr(mmengine_checkpoint, "get_external_models", lambda: dict(model=url))
    monkeypatch.setattr(mmengine_checkpoint, "get_torchvision_models", lambda: dict(model=url))
    monkeypatch.setattr(mmengine_checkpoint, "get_mmcls_models", lambda: dict(model=url))
    sources = ["torchvision://model", "open-mmlab://model", "mmcls://model"]
    for source in [str(evil), url, *sources]:
        with pytest.raises(ValueError, match="refused"):
            CheckpointLoader.load_checkpoint(source, map_location="cpu")
        with pytest.raises(ValueError, match="refused"):
            load_checkpoint(nn.Linear(1, 1), source)


def test_urls_with_one_file_name_are_kept_apart(served: str, tmp_path: Path) -> None:
    for folder in "ab":
        (tmp_path / folder).mkdir()
        torch.save(dict(state_dict={}, meta=dict(name=folder)), tmp_path / folder / "model.pth")
    for _ in range(2):
        for folder in "ab":
            read = CheckpointLoader.load_checkpoint(f"{served}/{folder}/model.pth", "cpu")
            assert read["meta"]["name"] == folder
    assert len(list((tmp_path / "hub" / "checkpoints").iterdir())) == 2


@pytest.mark.parametrize("source", ["s3://a/b.pth", "petrel://a/b.pth", "pavi://a/b.pth"])
def test_object_stores_are_refused(source: str) -> None:
    with pytest.raises(ValueError, match=re.escape(source)):
        CheckpointLoader.load_checkpoint(source)


def test_unknown_names_are_named() -> None:
    with pytest.raises(ValueError, match="open-mmlab://nothing"):
        CheckpointLoader.load_checkpoint("open-mmlab://nothing")


def test_runner_and_inference_refuse_code(evil: Path, trained: Path, tmp_path: Path) -> None:
    resumed = tiny_config(trained.parent, work_dir=str(tmp_path), load_from=str(evil), resume=True)
    with pytest.raises(ValueError, match="refused"):
        ZeroShotRunner.from_cfg(resumed).train()
    with pytest.raises(ValueError, match="refused"):
        init_model(tiny_config(trained.parent), str(evil), device="cpu")


def test_runner_resumes_what_it_logged(trained: Path, tmp_path: Path) -> None:
    runner = ZeroShotRunner.from_cfg(
        tiny_config(
            trained.parent,
            work_dir=str(tmp_path),
            load_from=str(trained / "iter_2.pth"),
            resume=True,
        )
    )
    runner.load_or_resume()
    before = torch.load(trained / "iter_2.pth", weights_only=False)["message_hub"]
    hub = runner.message_hub
    assert runner.iter == 2
    assert hub.get_info("keep_ckpt_ids") == [2]
    assert before["log_scalars"].keys() <= hub.log_scalars.keys()
    for name, history in before["log_scalars"].items():
        assert type(hub.log_scalars[name]) is HistoryBuffer
        for mine, other in zip(hub.log_scalars[name].data, history.data):
            assert type(mine) is np.ndarray
            np.testing.assert_array_equal(mine, other)
        assert hub.log_scalars[name].mean() == history.mean()


@pytest.mark.parametrize("name", ["iter_4.pth", "best_mIoU_iter_*.pth"])
def test_reads_all_that_the_runner_writes(name: str, trained: Path) -> None:
    file = next(trained.glob(name))
    mine, other = read_checkpoint(file), torch.load(file, weights_only=False)
    assert mine.keys() == other.keys()
    assert mine["meta"] == other["meta"]
    assert mine["state_dict"]._metadata == other["state_dict"]._metadata
    assert mine["message_hub"]["runtime_info"] == other["message_hub"]["runtime_info"]
    assert mine.get("param_schedulers") == other.get("param_schedulers")
    for part in ("state_dict", "optimizer"):
        if part in other:
            torch.testing.assert_close(mine[part], other[part], rtol=0, atol=0)


@pytest.mark.parametrize("module", ["numpy.core.multiarray", "numpy._core.multiarray"])
def test_reads_files_of_either_numpy(module: str, tmp_path: Path) -> None:
    history = HistoryBuffer([1.0, 2.0], [1, 1])
    torch.save(dict(score=np.float32(0.5), empty=np.zeros((0, 3)), history=history), tmp_path / "a")
    with zipfile.ZipFile(tmp_path / "a") as old, zipfile.ZipFile(tmp_path / "b", "w") as new:
        for name in old.namelist():
            data = old.read(name)
            for other in (b"numpy.core.multiarray", b"numpy._core.multiarray"):
                data = data.replace(other, module.encode())
            new.writestr(name, data)
    read = read_checkpoint(tmp_path / "b")
    assert read["score"] == np.float32(0.5) and read["score"].dtype == np.float32
    assert read["empty"].shape == (0, 3)
    assert read["history"].mean() == 1.5


@pytest.mark.parametrize("content", ["truncated", "text", "empty"])
def test_a_broken_file_is_named(content: str, trained: Path, tmp_path: Path) -> None:
    whole = (trained / "iter_4.pth").read_bytes()
    file = tmp_path / "broken.pth"
    file.write_bytes(dict(truncated=whole[: len(whole) // 2], text=b"not one", empty=b"")[content])
    with pytest.raises(ValueError, match=r"broken\.pth"):
        read_checkpoint(file)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"none\.pth"):
        read_checkpoint(tmp_path / "none.pth")


def test_reads_safetensors(tmp_path: Path) -> None:
    model = nn.Linear(2, 3)
    save_file(model.state_dict(), tmp_path / "model.safetensors")
    other = nn.Linear(2, 3)
    load_checkpoint(other, str(tmp_path / "model.safetensors"), map_location="cpu", strict=True)
    assert torch.equal(model.weight, other.weight)
    (tmp_path / "broken.safetensors").write_bytes(b"no")
    with pytest.raises(ValueError, match=r"broken\.safetensors"):
        read_checkpoint(tmp_path / "broken.safetensors")


def test_downloads_once(tmp_path: Path, served: str) -> None:
    torch.save(dict(weight=torch.ones(1)), tmp_path / "model.pth")
    first = CheckpointLoader.load_checkpoint(f"{served}/model.pth", map_location="cpu")
    (tmp_path / "model.pth").unlink()
    again = CheckpointLoader.load_checkpoint(f"{served}/model.pth", map_location="cpu")
    assert first["state_dict"] == again["state_dict"] == dict(weight=torch.ones(1))


def test_threads_read_at_once(trained: Path, evil: Path) -> None:
    """No state of the process takes part in the reading."""
    before = set(torch.serialization.get_safe_globals())

    def read(file: Path) -> bool:
        try:
            return "meta" in read_checkpoint(file)
        except ValueError:
            return False

    with ThreadPoolExecutor(8) as pool:
        intact = list(pool.map(read, [trained / "iter_4.pth", evil] * 20))
    assert intact == [True, False] * 20
    assert set(torch.serialization.get_safe_globals()) == before


def test_an_unknown_mmengine_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    def reads_otherwise(name: str, **options: Any) -> Any:
        return checkpoint_sources.load_from_probe(name)

    monkeypatch.setattr(mmengine_checkpoint, "_load_checkpoint", reads_otherwise)
    with pytest.raises(RuntimeError, match="mmengine"):
        checkpoint_sources.check_installed()
    monkeypatch.delattr(mmengine_checkpoint, "_load_checkpoint")
    with pytest.raises(RuntimeError, match="mmengine"):
        checkpoint_sources.check_installed()
