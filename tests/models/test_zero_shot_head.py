"""What heads get from their base class, and a method written outside the package."""

from __future__ import annotations

from pathlib import Path

import pytest
from mmengine.config import Config

from mmseg_otseg.models import ZeroShotHead
from tests.helpers.paths import ROOT
from tests.helpers.small_configs import small, train


def documented(name: str) -> str:
    """The code of a file that the guide for contributors shows."""
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    return text.split(f"`{name}`:\n\n```python\n", 1)[1].split("```", 1)[0]


def test_the_documented_method_trains(
    data_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "cascade_head.py").write_text(documented("cascade_head.py"))
    (tmp_path / "cascade_voc_512.py").write_text(documented("cascade_voc_512.py"))
    (tmp_path / "configs").symlink_to(ROOT / "configs")
    monkeypatch.syspath_prepend(str(tmp_path))
    cfg = small(Config.fromfile(tmp_path / "cascade_voc_512.py"), data_folder, tmp_path / "work")
    head = train(cfg).model.decode_head
    assert isinstance(head, ZeroShotHead) and len(head.decoders) == 3
