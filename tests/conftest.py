"""Shared fixtures: a CLIP small enough for tests."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from typing import Any
from unittest.mock import patch

import pytest
from mmengine.config import config as mmengine_config
from yapf.yapflib import yapf_api

import mmseg_otseg  # noqa: F401 (registers the components)

# mmengine collects garbage for every dataset it builds: spare it all that was imported.
gc.freeze()


def tiny_clip(**vision: Any) -> dict[str, Any]:
    """Config of a small CLIP: 3 layers, patch 16, joint width 32."""
    return {
        "embed_dim": 32,
        "vision_cfg": {
            "image_size": 64,
            "patch_size": 16,
            "width": 48,
            "layers": 3,
            "head_width": 12,
            **vision,
        },
        "text_cfg": {
            "width": 32,
            "heads": 2,
            "layers": 2,
            "context_length": 77,
            "vocab_size": 49408,
        },
    }


@pytest.fixture(autouse=True, scope="session")
def unformatted_configs() -> Iterator[None]:
    """Formatting the config, which mmengine does for each checkpoint, takes longer than a run."""
    holders = [holder for holder in (yapf_api, mmengine_config) if hasattr(holder, "FormatCode")]
    plain = {"FormatCode": lambda text, **options: (text, True)}
    with patch.multiple(holders[0], **plain), patch.multiple(holders[-1], **plain):
        yield


@pytest.fixture
def clip_config() -> dict[str, Any]:
    return tiny_clip()


@pytest.fixture
def clip(clip_config: dict[str, Any]) -> dict[str, Any]:
    """What components take as ``clip``: the small model with random weights."""
    return {"model": clip_config}
