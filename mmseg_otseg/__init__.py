"""OTSeg, ZegOT and ZegCLIP as components of MMSegmentation 1.x.

Importing the package registers its models, datasets, metrics and hooks with mmseg's registries;
``custom_imports = dict(imports=["mmseg_otseg"])`` in a config does the same.
"""

from __future__ import annotations

from importlib.util import find_spec
from typing import Any

from mmseg_otseg.quiet import quiet_imports
from mmseg_otseg.version import __version__

_STACK = ("mmengine", "mmcv", "mmseg")
_missing = [name for name in _STACK if find_spec(name) is None]
_MESSAGE = (
    f"mmseg_otseg needs MMSegmentation, but {' and '.join(_missing)} cannot be found. Install "
    "ONE of the two stacks that bring mmengine, mmcv and mmseg:\n"
    '  pip install "mmseg_otseg[onedl]"       the maintained one, nothing to compile\n'
    '  pip install "mmseg_otseg[openmmlab]"   the last upstream release, compiles mmcv\n'
    "With neither, only mmseg_otseg.inference can be used, which runs exported models."
)
if not _missing:
    with quiet_imports():
        from mmseg_otseg import datasets, engine, evaluation, models, ops, structures
elif len(_missing) < len(_STACK):
    raise ImportError(_MESSAGE)


def __getattr__(name: str) -> Any:
    if _missing and name in __all__:
        raise ImportError(_MESSAGE)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


__all__ = [
    "__version__",
    "datasets",
    "engine",
    "evaluation",
    "models",
    "ops",
    "structures",
]
