"""The trained model that comes with the project."""

from __future__ import annotations

from pathlib import Path

import mmseg_otseg

CONFIG = Path("shapes", "checkpoint", "otseg_plus.py")
WEIGHTS = CONFIG.with_suffix(".safetensors")
NONE_BELOW = 0.15
"""Probability below which a pixel is most likely ground, which is no class of these scenes."""


def shipped_model() -> tuple[Path, Path]:
    """Config and weights of an OTSeg+ for procedural scenes of colored shapes.

    Raises:
        FileNotFoundError: If the configs or the weights did not come with the package.
    """
    package = Path(mmseg_otseg.__file__).parent
    folders = (package / "configs", package.parent / "configs")  # installed, or a checkout
    for folder in folders:
        config, weights = folder / CONFIG, folder / WEIGHTS
        if config.is_file() and weights.is_file():
            return config, weights
    raise FileNotFoundError(
        f"the trained model {Path('configs') / WEIGHTS} is not there: give a config and a "
        "checkpoint of your own"
    )
