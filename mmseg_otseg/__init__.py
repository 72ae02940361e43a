"""OTSeg, ZegOT and ZegCLIP as components of MMSegmentation 1.x.

Importing the package registers its models, data sets, metrics and hooks with mmseg's registries;
``custom_imports = dict(imports=["mmseg_otseg"])`` in a config does the same.
"""

from __future__ import annotations

from importlib.util import find_spec

from mmseg_otseg.quiet import quiet_imports
from mmseg_otseg.version import __version__

_missing = [name for name in ("mmengine", "mmcv", "mmseg") if find_spec(name) is None]
if _missing:
    raise ImportError(
        f"mmseg_otseg needs MMSegmentation, but {' and '.join(_missing)} cannot be found. Install "
        "ONE of the two stacks that bring mmengine, mmcv and mmseg:\n"
        '  pip install "mmseg_otseg[onedl]"       the maintained one, nothing to compile\n'
        '  pip install "mmseg_otseg[openmmlab]"   the last upstream release, compiles mmcv'
    )

with quiet_imports():
    from mmseg_otseg import datasets, engine, evaluation, models, ops, structures

__all__ = [
    "__version__",
    "datasets",
    "engine",
    "evaluation",
    "models",
    "ops",
    "structures",
]
