"""The notebook runs from top to bottom, and is stored with its pictures."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path

import pytest

from mmseg_otseg.demo.samples import shipped_model
from tests.helpers.paths import ROOT

TOUR = ROOT / "configs" / "shapes" / "tour.ipynb"


def test_it_is_stored_with_pictures_and_without_paths() -> None:
    text = TOUR.read_text(encoding="utf-8")
    cells = json.loads(text)["cells"]
    outputs = [output for cell in cells for output in cell.get("outputs", ())]
    assert sum("image/png" in output.get("data", {}) for output in outputs) == 3
    assert len(text) < 1_000_000
    assert not any(word in text for word in ("/home/", "/root/", "/tmp/", "\\Users\\", str(ROOT)))


@pytest.mark.slow
def test_it_runs_from_top_to_bottom(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    nbformat = pytest.importorskip("nbformat", reason="nbclient is not installed")
    nbclient = pytest.importorskip("nbclient", reason="nbclient is not installed")
    pytest.importorskip("ipykernel", reason="ipykernel is not installed")
    try:
        shipped_model()
    except FileNotFoundError as error:
        pytest.skip(str(error))
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")]))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    notebook = nbformat.read(TOUR, as_version=4)
    folder = {"metadata": {"path": str(tmp_path)}}
    nbclient.NotebookClient(
        notebook, timeout=600, startup_timeout=300, kernel_name="python3", resources=folder
    ).execute()
    outputs = [out for cell in notebook.cells for out in cell.get("outputs", [])]
    drawings = [out for out in outputs if "image/png" in out.get("data", {})]
    printed = "".join(out.get("text", "") for out in outputs)
    assert len(drawings) == 3
    assert "'something blue', 'none of these')" in printed
    assert re.search(r"Iter\(train\) \[ *50/50\]", printed) and re.search(
        r"^hIoU \d", printed, re.M
    )
