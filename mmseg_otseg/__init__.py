"""OTSeg, ZegOT and ZegCLIP as components of MMSegmentation 1.x.

Importing the package registers its models, datasets, metrics and hooks with mmseg's registries;
``custom_imports = dict(imports=["mmseg_otseg"])`` in a config does the same.
"""

from __future__ import annotations

import contextlib
import io
import warnings
from importlib.util import find_spec
from typing import Any

from mmseg_otseg.version import __version__

#: Regular expressions that match the beginning of a warning that is harmless here.
_HARMLESS_WARNINGS = (
    "Fail to import ``MultiScaleDeformableAttention``",  # not used by any model here
    "The draw is False, it means that the hook for visualization",  # intended
    "The shape of value will convert from",  # mmengine makes (H, W) to (1, H, W)
    "`broadcast_buffers` is deprecated",  # mmengine names it that way
    r"This DataLoader will create \d+ worker processes",  # on machines with few cores
    "Setting (OMP|MKL)_NUM_THREADS environment variable",
)

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
    for _message in _HARMLESS_WARNINGS:
        warnings.filterwarnings("ignore", _message)
    # mmseg prints a line if a storage service is not installed that nothing here uses.
    with contextlib.redirect_stdout(io.StringIO()):
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
