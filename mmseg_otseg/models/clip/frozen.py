"""A pretrained module that is never trained, and that checkpoints leave out."""

from __future__ import annotations

import copy
import hashlib
import logging
from collections.abc import Mapping
from typing import Any

import torch
from mmengine.logging import print_log
from open_clip.transformer import QuickGELU
from torch import Tensor, nn

from mmseg_otseg.errors import UserError

from .source import PRECISIONS


class FrozenTower(nn.Module):
    """Keeps a module frozen: no gradients, always in eval mode, left out of checkpoints.

    Instead of the weights, the state dict holds their SHA-256 fingerprint and their activation.
    Loading a state dict without weights checks that it was made with the same weights and
    activation; loading one with weights replaces both. Once the weights differ from those the tower
    was built with, because others were loaded or they were trained (``requires_grad``), state dicts
    include them, as they always do with ``saved``.

    The fingerprint is that of the weights before they are rounded to ``precision``, so that a
    checkpoint fits a model of any precision.

    Args:
        module: The module to hold, in float32.
        saved: Whether state dicts include the module's weights.
        precision: In which the weights are stored and the module runs: ``"fp32"``, ``"bf16"`` or
            ``"fp16"``.
    """

    fingerprint: Tensor
    quick_gelu: Tensor

    def __init__(self, module: nn.Module, saved: bool = False, precision: str = "fp32") -> None:
        super().__init__()
        dtype = PRECISIONS[precision]
        fingerprint = weights_fingerprint(module)
        if dtype != torch.float32:
            module = copy.deepcopy(module).to(dtype)
        self.module = module.requires_grad_(False).eval()
        self.saved = saved
        # Prefix of the weights if the last state dict loaded had none of them.
        self._left_out: str | None = None
        self.register_buffer("fingerprint", fingerprint)
        self.register_buffer("quick_gelu", torch.tensor(uses_quick_gelu(module)).byte())
        self.register_state_dict_post_hook(_leave_weights_out)
        self.register_load_state_dict_post_hook(_forgive_missing_weights)

    @property
    def dtype(self) -> torch.dtype:
        """The type of the weights."""
        return next(self.module.parameters()).dtype

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """Call the module."""
        return self.module(*args, **kwargs)

    def train(self, mode: bool = True) -> FrozenTower:
        """Stay in eval mode whatever ``mode`` says."""
        return super().train(False)

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any) -> None:
        own = prefix + "module."
        weights = {k.removeprefix(own): v for k, v in state_dict.items() if k.startswith(own)}
        self._left_out = None if weights else own
        # Version 0.1 did not write the activation.
        activation = state_dict.setdefault(prefix + "quick_gelu", self.quick_gelu)
        found = state_dict.get(prefix + "fingerprint", self.fingerprint)
        own_weights = self.module.state_dict()
        other = [
            name
            for name, value in own_weights.items()
            if name not in weights or not _same_but_rounded(value, weights[name])
        ]
        if weights:
            if other:
                found = tensors_fingerprint(weights)
            else:  # if the precisions differ, the tower keeps its own
                found = self.fingerprint
                state_dict.update({own + name: value for name, value in own_weights.items()})
            state_dict[prefix + "fingerprint"] = found
            set_quick_gelu(self.module, bool(activation))
        same = torch.equal(found.cpu(), self.fingerprint.cpu())
        if not same or bool(activation) != bool(self.quick_gelu):
            if not weights:
                raise UserError(
                    "this checkpoint was trained over other CLIP weights "
                    f"({_name(found, activation)}) than the model was built with "
                    f"({_name(self.fingerprint, self.quick_gelu)}). Build the model with the same "
                    "`clip` settings (model, pretrained, quick_gelu and, for random weights, seed) "
                    "as the training config."
                )
            self.saved = True  # nobody could build this tower again from the config
            # A position embedding of another size may be the tower's own, resized.
            if any(n in weights and weights[n].shape == own_weights[n].shape for n in other):
                print_log(
                    "This checkpoint brings CLIP weights that differ from those of the model's "
                    "`clip` settings, and replaces them. If they were not trained further, `clip` "
                    "is another CLIP than the checkpoint's, and text that it encodes will not fit.",
                    "current",
                    logging.WARNING,
                )
        super()._load_from_state_dict(state_dict, prefix, *args)


def uses_quick_gelu(tower: nn.Module) -> bool:
    """Whether a tower of open_clip has QuickGELU (OpenAI's) instead of GELU.

    The weights of a tower do not say which one they need.
    """
    return any(isinstance(module, QuickGELU) for module in tower.modules())


def set_quick_gelu(tower: nn.Module, quick_gelu: bool) -> None:
    """Give every block of a tower of open_clip the activation QuickGELU or GELU, in place."""
    for module in list(tower.modules()):
        for name, child in module.named_children():
            if isinstance(child, (QuickGELU, nn.GELU)):
                setattr(module, name, QuickGELU() if quick_gelu else nn.GELU())


def activation_name(quick_gelu: bool) -> str:
    """The activation as messages name it."""
    return "QuickGELU" if quick_gelu else "GELU"


def _same_but_rounded(one: Tensor, other: Tensor) -> bool:
    """Whether two tensors are equal in the less precise of their types."""
    if one.shape != other.shape:
        return False
    coarse = min(one.dtype, other.dtype, key=lambda dtype: dtype.itemsize)
    return torch.equal(one.cpu().to(coarse), other.cpu().to(coarse))


def weights_fingerprint(module: nn.Module) -> Tensor:
    """SHA-256 of a module's parameters and buffers in float32, as 32 uint8 values."""
    return tensors_fingerprint(module.state_dict())


def tower_fingerprint(tower: nn.Module) -> Tensor:
    """SHA-256 of a tower's weights and activation, as 32 uint8 values."""
    activation = activation_name(uses_quick_gelu(tower)).encode()
    digest = hashlib.sha256(bytes(weights_fingerprint(tower).tolist()) + activation)
    return torch.tensor(list(digest.digest()), dtype=torch.uint8)


def tensors_fingerprint(tensors: Mapping[str, Tensor]) -> Tensor:
    """SHA-256 of names and tensors in float32, as 32 uint8 values."""
    digest = hashlib.sha256()
    for name, value in sorted(tensors.items()):
        digest.update(name.encode())
        digest.update(value.detach().float().cpu().contiguous().numpy().data)
    return torch.frombuffer(bytearray(digest.digest()), dtype=torch.uint8)


def _name(fingerprint: Tensor, quick_gelu: Tensor) -> str:
    digits = bytes(fingerprint.cpu().tolist()).hex()[:12]
    return f"fingerprint {digits}, {activation_name(bool(quick_gelu))}"


def _leave_weights_out(tower: FrozenTower, state_dict: dict[str, Any], prefix: str, _: Any) -> None:
    if any(parameter.requires_grad for parameter in tower.module.parameters()):
        state_dict[prefix + "fingerprint"] = weights_fingerprint(tower.module)
        tower.saved = True
    if not tower.saved:
        for key in [key for key in state_dict if key.startswith(prefix + "module.")]:
            del state_dict[key]


def _forgive_missing_weights(tower: FrozenTower, incompatible: Any) -> None:
    # Weights that were left out on purpose are not missing.
    if tower._left_out is not None:
        incompatible.missing_keys[:] = [
            key for key in incompatible.missing_keys if not key.startswith(tower._left_out)
        ]
