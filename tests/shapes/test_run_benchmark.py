"""The benchmark over rows and seeds, whole, and again after having been killed."""

from __future__ import annotations

import json
from pathlib import Path
from statistics import fmean

import pytest

from tests.helpers.run_tools import run_tool
from tests.helpers.shapes_run import tiny_options

ROWS = ("training_free", "otseg", "otseg_plus")


def benchmark(work_dir: Path, *options: object) -> None:
    rows = ("--rows", *ROWS, "--seeds", 0, 1, "--work-dir", work_dir)
    run_tool("shapes/run_benchmark", *rows, *tiny_options(), *options)


def test_rows(tmp_path: Path) -> None:
    benchmark(tmp_path)
    results = sorted(tmp_path.glob("*/seed_*/evaluation/bias_chosen.json"))
    names = [file.parts[-4] for file in results]
    assert names == ["otseg", "otseg", "otseg_plus", "otseg_plus", "training_free"]
    text = (tmp_path / "table.md").read_text()
    mean = fmean(json.loads(file.read_text())["mIoU_S"] for file in results[:2])
    assert f"| OTSeg | {mean:.1f} ±" in text and "± " not in text.split("CLIP map")[1][:30]

    trained = tmp_path / "otseg" / "seed_0" / "iter_4.pth"
    written = {file: file.stat().st_mtime_ns for file in (trained, *results)}
    results[0].unlink()  # as if killed before it was written
    benchmark(tmp_path)
    assert (tmp_path / "table.md").read_text() == text
    assert [f for f, time in written.items() if f.stat().st_mtime_ns != time] == [results[0]]

    benchmark(tmp_path, "--bias", 0.1)
    assert (tmp_path / "table.md").read_text().count("| 0.100 ") == len(ROWS)
    with pytest.raises(ValueError, match="--work-dir"):  # a run of other settings is there
        benchmark(tmp_path, "--cfg-options", "train_cfg.max_iters=3")
