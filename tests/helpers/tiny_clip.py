"""A CLIP small enough for tests, and its weights in OpenAI's kind of file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import nn


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


def save_archive(path: Path, clip: nn.Module, dtype: torch.dtype = torch.float32) -> None:
    """Save CLIP as a TorchScript archive of its parameters."""

    class Holder(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x

    root = Holder()
    for name, value in clip.state_dict().items():
        module = root
        *folders, leaf = name.split(".")
        for folder in folders:
            if not hasattr(module, folder):
                module.add_module(folder, Holder())
            module = getattr(module, folder)
        module.register_buffer(leaf, value.to(dtype) if value.is_floating_point() else value)
    root.register_buffer("input_resolution", torch.tensor(64))
    torch.jit.save(torch.jit.trace(root, torch.zeros(1)), str(path))
