"""Downloading the weights that open_clip's tags name."""

from __future__ import annotations

import os
import urllib.error
import urllib.request
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import open_clip
from huggingface_hub import try_to_load_from_cache
from huggingface_hub.constants import ENDPOINT
from open_clip.constants import HF_SAFE_WEIGHTS_NAME, HF_WEIGHTS_NAME

SECONDS_TO_ANSWER = 10


def download_weights(tag: Mapping[str, Any], cache_dir: str | None = None) -> Path:
    """The weights file of a tag, downloaded on first use.

    Without network access this fails at once, where the hub's client would try for a minute.

    Args:
        tag: open_clip's entry for the tag (``open_clip.get_pretrained_cfg``).
        cache_dir: Where open_clip keeps downloads; None is its default.

    Returns:
        Path of the file.

    Raises:
        ConnectionError: If the file is not there yet and cannot be downloaded.
    """
    cached = _cached(tag, cache_dir)
    if cached is not None:
        return cached
    try:
        _reach(ENDPOINT if tag.get("hf_hub") else tag["url"])
        return Path(open_clip.download_pretrained(dict(tag), cache_dir=cache_dir))
    except Exception as error:  # each client has errors of its own
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise ConnectionError(reason) from error


def _cached(tag: Mapping[str, Any], cache_dir: str | None) -> Path | None:
    """What an earlier download left, as open_clip would take it."""
    if not tag.get("hf_hub"):
        return None  # open_clip looks itself, and verifies the file
    repo, name = os.path.split(tag["hf_hub"])
    names = (os.path.splitext(name)[0] + ".safetensors", name) if name else ()
    for candidate in names or (HF_SAFE_WEIGHTS_NAME, HF_WEIGHTS_NAME):
        found = try_to_load_from_cache(repo, candidate, cache_dir=cache_dir)
        if isinstance(found, str):
            return Path(found)
    return None


def _reach(url: str) -> None:
    """Raise the error of the connection if nothing answers at ``url``, whatever it answers."""
    request = urllib.request.Request(url, method="HEAD")
    with suppress(urllib.error.HTTPError):  # which is an answer
        urllib.request.urlopen(request, timeout=SECONDS_TO_ANSWER).close()
