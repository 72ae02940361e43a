"""Which activation a CLIP tower uses. Its weights do not say, but need the right one."""

from __future__ import annotations

from open_clip.transformer import QuickGELU
from torch import nn


def uses_quick_gelu(tower: nn.Module) -> bool:
    """Whether a tower of open_clip was built with QuickGELU (OpenAI's) instead of GELU."""
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
