"""OTSeg and ZegOT as components of MMSegmentation 1.x.

Importing the package registers its models, data sets, metrics and hooks with mmseg's registries;
``custom_imports = dict(imports=["mmseg_otseg"])`` in a config does the same.
"""

from __future__ import annotations

from mmseg_otseg.version import __version__

try:
    from mmseg_otseg import datasets, engine, evaluation, models, ops, structures
except ModuleNotFoundError as error:
    # `mmcv._ext` is what upstream mmseg misses when only mmcv-lite is installed.
    if (error.name or "").partition(".")[0] not in ("mmengine", "mmcv", "mmseg"):
        raise
    raise ImportError(
        f"mmseg_otseg needs MMSegmentation with mmengine and mmcv, and '{error.name}' is not "
        "installed. Install ONE of the two stacks that provide them:\n"
        '  pip install "mmseg_otseg[onedl]"       the maintained one, nothing to compile\n'
        '  pip install "mmseg_otseg[openmmlab]"   the last upstream release, compiles mmcv'
    ) from error

__all__ = [
    "__version__",
    "datasets",
    "engine",
    "evaluation",
    "models",
    "ops",
    "structures",
]
