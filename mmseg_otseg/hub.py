"""Files on the Hugging Face hub, ``hf://OWNER/NAME[/FILE]``, which are kept once downloaded.

:func:`seems_to_be` names what a failed download left in the place of weights.
"""

from __future__ import annotations

import logging
import urllib.error
import urllib.request
import zipfile
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from huggingface_hub import (
    get_hf_file_metadata,
    hf_hub_download,
    hf_hub_url,
    try_to_load_from_cache,
)
from huggingface_hub.constants import ENDPOINT
from huggingface_hub.errors import EntryNotFoundError
from mmengine.logging import print_log

from mmseg_otseg.errors import UserError

SCHEME = "hf://"
CHECKPOINTS = ("model.safetensors", "model.pth")
SECONDS_TO_ANSWER = 4


def fetch(address: str, files: Sequence[str] = CHECKPOINTS, cache_dir: str | None = None) -> Path:
    """The local copy of a file on the hub, downloaded on first use with a progress bar.

    Args:
        address: ``hf://OWNER/NAME/FILE``, or ``hf://OWNER/NAME`` for the first of ``files`` there.
        files: Names to look for.
        cache_dir: Where the hub's client keeps files; None is its default.

    Raises:
        UserError: If the address names no file.
        ConnectionError: If the file is not here yet and cannot be downloaded.
    """
    owner, name, *rest = [*address.removeprefix(SCHEME).rstrip("/").split("/"), ""]
    repo, file = f"{owner}/{name}", "/".join(rest).rstrip("/")
    if not owner or not name:
        raise UserError(f"{address!r} is not {SCHEME}OWNER/NAME or {SCHEME}OWNER/NAME/FILE")
    names = (file,) if file else tuple(files)
    if (found := cached(repo, names, cache_dir)) is not None:
        return found
    try:
        reach(ENDPOINT)  # the hub's client would try for a minute
        for candidate in names:
            with suppress(EntryNotFoundError):
                page = hf_hub_url(repo, candidate, endpoint=ENDPOINT)
                announce(f"{candidate} of {repo}", get_hf_file_metadata(page).size)
                return Path(
                    hf_hub_download(repo, candidate, cache_dir=cache_dir, endpoint=ENDPOINT)
                )
    except Exception as error:  # the client has errors of its own
        raise download_error(names[0], f"{ENDPOINT}/{repo}", error) from error
    raise UserError(f"{ENDPOINT}/{repo} has no file {' or '.join(names)}")


def cached(repo: str, files: Sequence[str], cache_dir: str | None = None) -> Path | None:
    """The first of some files of a repository that was downloaded earlier; None if none was."""
    for file in files:
        found = try_to_load_from_cache(repo, file, cache_dir=cache_dir)
        if isinstance(found, str):
            return Path(found)
    return None


def reach(url: str) -> int | None:
    """Ask for the size of a file in bytes; None if the answer does not say it.

    Raises:
        OSError: If nothing answers.
    """
    request = urllib.request.Request(url, method="HEAD")
    try:
        with urllib.request.urlopen(request, timeout=SECONDS_TO_ANSWER) as answer:
            return int(answer.headers.get("Content-Length") or 0) or None
    except urllib.error.HTTPError:  # which is an answer
        return None


def announce(what: str, size: int | None) -> None:
    """Say what is being downloaded and how large it is."""
    extent = f", {size / 1e6:,.0f} MB," if size else ""
    print_log(f"downloading {what}{extent} once", "current", logging.INFO)


def download_error(file: str, page: str, error: Exception) -> ConnectionError:
    """The error that says where to find a file that could not be downloaded."""
    reason = (str(getattr(error, "reason", error)).strip() or type(error).__name__).splitlines()[0]
    return ConnectionError(
        f"{file} cannot be downloaded from {page} ({reason}). Without network access, fetch this "
        "file elsewhere, copy it here, and give its path."
    )


def seems_to_be(file: Path) -> str | None:
    """What a file that cannot be read as weights seems to be, in words; None if that is unclear."""
    with file.open("rb") as content:
        start = content.read(512)
    if not start:
        return "it is empty"
    if start.startswith(b"version https://git-lfs"):
        return "it is only a pointer of Git LFS, for which `git lfs pull` fetches the file itself"
    if start.lstrip()[:9].lower().startswith((b"<!doctype", b"<html", b"<?xml")):
        return "it is a web page, which is what some failed downloads leave"
    if start.startswith(b"PK"):
        if not zipfile.is_zipfile(file):
            return "its end is missing, as after a download or copy that broke off"
        with zipfile.ZipFile(file) as archive:
            holds_pickle = any(name.endswith("data.pkl") for name in archive.namelist())
        return None if holds_pickle else "it is a ZIP archive with something else in it"
    return "it is a text file" if start.isascii() and b"\0" not in start else None
