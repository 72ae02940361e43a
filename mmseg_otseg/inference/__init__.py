"""Images in, masks and overlays out, with a model in torch or an exported one.

Exported models run without torch and mmseg, so this module imports either kind only when asked.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

_MODULES = {
    "Inspection": "inspection",
    "OTSegInferencer": "inferencer",
    "OTSegRuntime": "runtime",
    "Segmenter": "segmenter",
    "set_classes": "vocabulary",
    "copy_with_classes": "vocabulary",
}
__all__ = list(_MODULES)


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)
