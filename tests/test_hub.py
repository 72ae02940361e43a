"""Files of the hub, from a server on this machine that answers as the hub does."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import pytest
import torch
from mmengine.runner import CheckpointLoader
from safetensors.torch import save_file

import mmseg_otseg.engine  # noqa: F401  registers the scheme
from mmseg_otseg import hub
from mmseg_otseg.models import load_clip
from mmseg_otseg.models.clip import resolve_clip


@pytest.fixture
def files() -> dict[str, bytes]:
    """What the hub has, by OWNER/NAME/FILE."""
    return {}


@pytest.fixture
def server(
    files: dict[str, bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[ThreadingHTTPServer]:
    class Handler(BaseHTTPRequestHandler):
        def do_HEAD(self) -> None:
            self.answer()

        def do_GET(self) -> None:
            self.wfile.write(self.answer())

        def answer(self) -> bytes:
            found = files.get(self.path[1:].replace("/resolve/main/", "/"))
            self.send_response(404 if found is None and self.path != "/" else 200)
            if found is None:
                self.send_header("X-Error-Code", "EntryNotFound")
            else:
                self.send_header("ETag", f'"{hashlib.sha256(found).hexdigest()}"')
                self.send_header("X-Repo-Commit", "a" * 40)
            self.send_header("Content-Length", str(len(found or b"")))
            self.end_headers()
            return found or b""

        def log_message(self, *_: Any) -> None: ...

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as serving:
        address = f"http://127.0.0.1:{serving.server_address[1]}"
        monkeypatch.setattr(hub, "ENDPOINT", address)
        monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "cache"))
        monkeypatch.setattr("huggingface_hub.file_download.constants.HF_HUB_DISABLE_XET", True)
        Thread(target=serving.serve_forever, daemon=True).start()
        yield serving
        serving.shutdown()


def test_a_checkpoint(
    files: dict[str, bytes], server: ThreadingHTTPServer, logged: list[str], tmp_path: Path
) -> None:
    torch.save({"state_dict": {"a": torch.ones(2)}}, tmp_path / "w.pth")
    files["owner/name/sub/w.pth"] = files["owner/name/model.pth"] = (
        tmp_path / "w.pth"
    ).read_bytes()
    for address in ("hf://owner/name/sub/w.pth", "hf://owner/name"):
        content = CheckpointLoader.load_checkpoint(address, map_location="cpu")
        assert content["state_dict"]["a"].tolist() == [1, 1]
    assert any("sub/w.pth of owner/name" in line and "MB" in line for line in logged)
    server.shutdown()
    server.server_close()  # offline, what was downloaded is still here
    assert hub.fetch("hf://owner/name").is_file()
    with pytest.raises(ConnectionError, match=r"other\.pth .*owner/name.*fetch this file"):
        hub.fetch("hf://owner/name/other.pth")


def test_weights_of_clip(
    files: dict[str, bytes], server: ThreadingHTTPServer, clip_config: dict, tmp_path: Path
) -> None:
    save_file(load_clip(clip_config).state_dict(), tmp_path / "w.safetensors")
    files["owner/name/open_clip_model.safetensors"] = (tmp_path / "w.safetensors").read_bytes()
    files["owner/name/open_clip_config.json"] = b'{"model_cfg": {"quick_gelu": true}}'
    assert resolve_clip(clip_config, "hf://owner/name").quick_gelu
    clip = load_clip(clip_config, "hf://owner/name")
    assert torch.equal(clip.logit_scale, load_clip(clip_config).logit_scale)


def test_what_is_not_there(server: ThreadingHTTPServer) -> None:
    with pytest.raises(ValueError, match=r"no file model\.safetensors or model\.pth"):
        hub.fetch("hf://owner/name")
    with pytest.raises(ValueError, match="OWNER/NAME"):
        hub.fetch("hf://owner")
