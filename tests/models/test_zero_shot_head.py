"""What heads get from their base class, and a method written outside the package."""

from __future__ import annotations

import inspect
import textwrap
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from mmengine.config import Config

from mmseg_otseg.engine import ZeroShotRunner
from mmseg_otseg.models import ZeroShotHead, decode_heads
from tests.helpers.paths import ROOT
from tests.helpers.small_configs import small, write_data


def documented(name: str) -> str:
    """The code of the example that the documentation of the heads ends a sentence with."""
    text = inspect.getdoc(decode_heads) or ""
    code = text.split(f"{name}``::", 1)[1]
    lines = code.splitlines()[1:]
    end = next((i for i, line in enumerate(lines) if line and line[0] != " "), len(lines))
    return textwrap.dedent("\n".join(lines[:end])).strip() + "\n"


def test_the_documented_method_trains(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "cascade_head.py").write_text(documented("cascade_head.py"))
    (tmp_path / "cascade_voc_512.py").write_text(documented("cascade_voc_512.py"))
    (tmp_path / "configs").symlink_to(ROOT / "configs")
    monkeypatch.syspath_prepend(str(tmp_path))
    write_data(tmp_path)
    cfg = small(Config.fromfile(tmp_path / "cascade_voc_512.py"), tmp_path)
    runner = ZeroShotRunner.from_cfg(cfg)
    head = runner.model.decode_head
    assert isinstance(head, ZeroShotHead) and len(head.decoders) == 3
    before = {n: p.detach().clone() for n, p in runner.model.named_parameters()}
    runner.train()
    moved = {n for n, p in runner.model.named_parameters() if not torch.equal(p, before[n])}
    assert moved == {n for n, p in runner.model.named_parameters() if p.requires_grad}
    assert "val/hIoU" in runner.message_hub.log_scalars


@pytest.mark.parametrize(
    ("returned", "told"),
    [
        (torch.zeros(2, 3, 4), "returned Tensor"),
        ({"a": torch.zeros(2, 3, 4), "b": torch.zeros(2, 4, 3)}, r"b: \(2, 4, 3\)"),
    ],
)
def test_maps_of_another_shape_are_refused(returned: Any, told: str) -> None:
    class Wrong(ZeroShotHead):
        def class_maps(self, queries: Any, levels: Any) -> Any:
            return returned

    features = SimpleNamespace(pixels=[torch.zeros(2, 8, 2, 2)], queries=torch.zeros(2, 3, 5, 8))
    with pytest.raises(ValueError, match=told) as error:
        Wrong(3, embed_dim=8)(features)
    assert "Wrong.class_maps" in str(error.value) and "(2, 3, 4)" in str(error.value)
