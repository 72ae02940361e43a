"""Finding the checkpoint that a run continues from."""

from __future__ import annotations

from pathlib import Path

from mmengine.runner import find_latest_checkpoint


def latest_checkpoint(work_dir: str) -> str | None:
    """The newest checkpoint of a run, also when its folder was moved; None if it wrote none yet.

    Raises:
        FileNotFoundError: The folder names a checkpoint that is not there.
    """
    named = find_latest_checkpoint(work_dir)
    if named is None:
        return None
    for file in (Path(named), Path(work_dir) / Path(named).name):
        if file.is_file():
            return str(file)
    raise FileNotFoundError(
        f"{Path(work_dir) / 'last_checkpoint'} names '{named}', which is not there. Give the "
        "checkpoint to resume from with --resume PATH, or remove that file to start anew."
    )
