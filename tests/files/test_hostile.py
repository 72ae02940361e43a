from __future__ import annotations

import re
from pathlib import Path

import pytest

from mmseg_otseg.engine import read_checkpoint
from tests.helpers.hostile import fence, hostile_files


def test_every_hostile_file_is_refused_by_name(tmp_path: Path) -> None:
    marker = tmp_path / "executed"
    for file in hostile_files(tmp_path, marker).values():
        with fence(), pytest.raises(ValueError, match=re.escape(file.name)) as caught:
            read_checkpoint(file)
        assert not re.search("MemoryError|recursion depth", str(caught.value))
    assert not marker.exists()
