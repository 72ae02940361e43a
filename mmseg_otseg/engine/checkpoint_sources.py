"""Where checkpoints are read from: a file, a URL, or one of mmengine's model lists."""

from __future__ import annotations

from hashlib import sha256
from pathlib import Path
from typing import Any
from urllib.parse import urlparse

import mmengine
import torch
from mmengine.dist import barrier, is_main_process
from mmengine.runner import CheckpointLoader, runner
from mmengine.runner import checkpoint as mmengine_checkpoint

from mmseg_otseg.errors import UserError
from mmseg_otseg.files import MapLocation

from .checkpoint import read_checkpoint
from .harmless import make_harmless


def load_from_local(filename: str, map_location: MapLocation = None) -> Any:
    """Read a file; see :func:`~mmseg_otseg.engine.read_checkpoint`."""
    return read_checkpoint(filename, map_location)


def load_from_http(
    filename: str,
    map_location: MapLocation = None,
    model_dir: str | None = None,
    progress: bool = True,
) -> Any:
    """Download a file to torch's hub folder if it is not there yet, and read it.

    The file is stored under its own name plus a digest of the URL, because other URLs may end in
    the same name.

    Args:
        filename: The URL.
        map_location: As for :func:`torch.load`.
        model_dir: Where to keep the file. Default: ``checkpoints`` in torch's hub folder.
        progress: Whether to show a progress bar.

    Returns:
        The content; see :func:`~mmseg_otseg.engine.read_checkpoint`.

    Raises:
        OSError: If the download fails.
        UserError: If the file is refused; see :func:`~mmseg_otseg.engine.read_checkpoint`.
    """
    folder = Path(model_dir or Path(torch.hub.get_dir()) / "checkpoints")
    name = Path(urlparse(filename).path)
    file = folder / f"{name.stem}-{sha256(filename.encode()).hexdigest()[:12]}{name.suffix}"
    if is_main_process():
        _download(filename, file, progress)
    barrier()
    _download(filename, file, progress)  # a process on another machine has a folder of its own
    return read_checkpoint(file, map_location)


def _download(url: str, file: Path, progress: bool) -> None:
    if not file.is_file():
        file.parent.mkdir(parents=True, exist_ok=True)
        torch.hub.download_url_to_file(url, str(file), progress=progress)


def load_from_model_list(filename: str, map_location: MapLocation = None) -> Any:
    """Read the checkpoint that mmengine lists under a name, such as ``open-mmlab://resnet50_v1c``.

    Raises:
        UserError: If mmengine does not know the name.
    """
    source, _, name = filename.partition("://")
    if source in ("torchvision", "modelzoo"):
        models = mmengine_checkpoint.get_torchvision_models()
    elif source == "mmcls":
        models = mmengine_checkpoint.get_mmcls_models()
    else:
        models = mmengine_checkpoint.get_external_models()
        name = mmengine_checkpoint.get_deprecated_model_names().get(name, name)
    place = models.get(name)
    if place is None:
        raise UserError(f"mmengine knows no checkpoint named {filename}")
    if place.startswith(("http://", "https://")):
        content = load_from_http(place, map_location)
    else:
        content = read_checkpoint(Path(mmengine_checkpoint._get_mmengine_home(), place))
    if source == "mmcls":  # a whole classifier, of which only the backbone is needed
        state, prefix = content.get("state_dict", content), "backbone."
        own = {key.removeprefix(prefix): state[key] for key in state if key.startswith(prefix)}
        content = {"state_dict": own}
    return content


def load_from_object_store(filename: str, map_location: MapLocation = None) -> Any:
    """Refuse object stores, because mmengine's clients execute code in the files they read."""
    raise UserError(f"{filename} is in an object store: copy the file here and give its path")


PROBE = "mmseg_otseg-probe://"
UNKNOWN_MMENGINE = (
    f"mmengine {mmengine.__version__} reads checkpoints in a way that mmseg_otseg does not know "
    "and cannot make safe. Install a version that mmseg_otseg's setup.py allows."
)
SOURCES = {
    load_from_local: [""],
    load_from_http: ["http://", "https://"],
    load_from_model_list: [
        "modelzoo://",
        "torchvision://",
        "open-mmlab://",
        "openmmlab://",
        "mmcls://",
    ],
    load_from_object_store: ["pavi://", r"(\S+\:)?s3://", r"(\S+\:)?petrel://"],
}


def install() -> None:
    """Make mmengine read checkpoints from every source through this module only.

    Raises:
        RuntimeError: If this version of mmengine reads checkpoints in another way.
    """
    load = CheckpointLoader.load_checkpoint.__func__

    def load_checkpoint(
        cls: type, filename: str, map_location: MapLocation = None, logger: str = "current"
    ) -> Any:
        return make_harmless(load(cls, filename, map_location, logger), str(filename))

    for loader, prefixes in SOURCES.items():
        CheckpointLoader.register_scheme(prefixes, loader, force=True)
    CheckpointLoader.load_checkpoint = classmethod(load_checkpoint)
    check_installed()


def load_from_probe(filename: str, map_location: MapLocation = None) -> Any:
    """A checkpoint with a config that mmengine would execute if it bypassed this module."""
    return {"state_dict": {}, "meta": {"config": filename}}


def check_installed() -> None:
    """Raise a RuntimeError unless mmengine reads checkpoints through this module."""
    CheckpointLoader.register_scheme(PROBE, load_from_probe, force=True)
    try:
        read = [
            module._load_checkpoint(PROBE, logger="silent")
            for module in (mmengine_checkpoint, runner)
        ]
        safe = all("config" not in checkpoint["meta"] for checkpoint in read)
    except (AttributeError, TypeError, KeyError) as error:
        raise RuntimeError(UNKNOWN_MMENGINE) from error
    if not safe:
        raise RuntimeError(UNKNOWN_MMENGINE)
