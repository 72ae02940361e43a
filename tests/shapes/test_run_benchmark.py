"""The benchmark over rows and seeds, whole, again and after having been killed."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from mmengine.runner import Runner

from tests.helpers.run_tools import run_tool
from tests.helpers.shapes_run import tiny_options

TOOL = "shapes/run_benchmark"


def arguments(work_dir: Path, *rows: str, seeds: tuple[int, ...] = (0, 1)) -> list[object]:
    return ["--rows", *rows, "--seeds", *seeds, "--work-dir", work_dir, *tiny_options()]


def test_rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = ["training_free", "otseg", "otseg_plus"]
    run_tool(TOOL, *arguments(tmp_path, *rows))
    report = json.loads((tmp_path / "table.json").read_text())
    assert list(report["table"]) == rows
    assert [len(runs) for runs in report["runs"].values()] == [1] + (len(rows) - 1) * [2]
    for name, row in report["table"].items():
        tests = [run["test"] for run in report["runs"][name]]
        mean = sum(test["calibrated"]["hIoU"] for test in tests) / len(tests)
        assert row["calibrated"]["hIoU"]["mean"] == pytest.approx(mean)
        assert (row["seconds"]["mean"] > 0) == (name != "training_free")
        for test in tests:
            assert test["none"]["seen_bias"] == 0 and test["paper"]["seen_bias"] == 0.1
    assert not (tmp_path / "otseg_plus" / "seed_0" / "last_checkpoint").exists()
    text = (tmp_path / "table.md").read_text()
    assert text.count("| OTSeg+ |") == 3 and "mIoU(U)" in text

    def refuse(self: Runner) -> None:
        raise AssertionError("what is finished must not run again")

    for method in ("train", "val", "test"):
        monkeypatch.setattr(Runner, method, refuse)
    run_tool(TOOL, *arguments(tmp_path, *rows))
    assert json.loads((tmp_path / "table.json").read_text()) == report
    with pytest.raises(ValueError, match="--work-dir"):  # a run of other settings is there
        run_tool(TOOL, *arguments(tmp_path, "otseg"), "train_cfg.max_iters=3")


def test_learning_curve(tmp_path: Path) -> None:
    rows = ["training_free", "mps_only"]
    run_tool(TOOL, "--iterations", 2, 3, *arguments(tmp_path, *rows, seeds=(0,)))
    table = json.loads((tmp_path / "table.json").read_text())["table"]
    assert list(table) == ["training_free", "mps_only@2", "mps_only@3"]
    assert table["mps_only@2"]["none"] != table["mps_only@3"]["none"]
    assert "| MPS map only, 3 iterations |" in (tmp_path / "table.md").read_text()
