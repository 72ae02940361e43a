"""A pretrained module that never trains and that checkpoints need not repeat."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

FINGERPRINT_BYTES = 32


class FrozenTower(nn.Module):
    """Holds a module for good: no gradients, eval mode, identified in checkpoints by a fingerprint.

    The state dict holds a SHA-256 fingerprint of the weights instead of the weights, unless
    ``saved``. Loading a state dict without the weights checks that it was made with these very
    weights; one that brings the weights replaces them, and if they are not the ones the tower was
    built with, state dicts include them from then on.

    Args:
        module: The module to hold.
        saved: Whether state dicts include the module's weights.
    """

    fingerprint: Tensor

    def __init__(self, module: nn.Module, saved: bool = False) -> None:
        super().__init__()
        self.module = module.requires_grad_(False).eval()
        self.saved = saved
        self._left_out: str | None = (
            None  # prefix of the weights the last loaded state dict had not
        )
        self.register_buffer("fingerprint", weights_fingerprint(module))
        self._register_state_dict_hook(_leave_weights_out)
        self.register_load_state_dict_post_hook(_forgive_missing_weights)

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """Call the module."""
        return self.module(*args, **kwargs)

    def train(self, mode: bool = True) -> FrozenTower:
        """Stay in eval mode whatever ``mode`` says."""
        return super().train(False)

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any) -> None:
        found = state_dict.get(prefix + "fingerprint")
        brings_weights = any(key.startswith(prefix + "module.") for key in state_dict)
        self._left_out = None if brings_weights else prefix + "module."
        same = found is None or torch.equal(found.cpu(), self.fingerprint.cpu())
        if not same and brings_weights:
            self.saved = True  # nobody could build these weights again from the config
        elif found is not None and not same:
            raise ValueError(
                f"this checkpoint was trained over other CLIP weights (fingerprint {_hex(found)}) "
                f"than the model was built with (fingerprint {_hex(self.fingerprint)}). Build the "
                "model with the same `clip` settings (model, pretrained and, for random weights, "
                "seed) as the training config."
            )
        super()._load_from_state_dict(state_dict, prefix, *args)


def weights_fingerprint(module: nn.Module) -> Tensor:
    """SHA-256 of a module's parameters and buffers in float32, as 32 uint8 values."""
    return tensors_fingerprint(module.state_dict())


def tensors_fingerprint(tensors: Mapping[str, Tensor]) -> Tensor:
    """SHA-256 of names and tensors in float32, as 32 uint8 values."""
    digest = hashlib.sha256()
    for name, value in sorted(tensors.items()):
        digest.update(name.encode())
        digest.update(value.detach().float().cpu().contiguous().numpy().data)
    return torch.frombuffer(bytearray(digest.digest()), dtype=torch.uint8)


def _hex(fingerprint: Tensor) -> str:
    return bytes(fingerprint.cpu().tolist()).hex()[:12]


def _leave_weights_out(tower: FrozenTower, state_dict: dict[str, Any], prefix: str, _: Any) -> None:
    if not tower.saved:
        for key in [key for key in state_dict if key.startswith(prefix + "module.")]:
            del state_dict[key]


def _forgive_missing_weights(tower: FrozenTower, incompatible: Any) -> None:
    # Weights that were left out on purpose are not missing.
    if tower._left_out is not None:
        incompatible.missing_keys[:] = [
            key for key in incompatible.missing_keys if not key.startswith(tower._left_out)
        ]
